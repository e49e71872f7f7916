//! Where a server is and what this machine knows of it.

use crate::cli::ServerArgs;
use crate::exit::{Exit, Failure};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_quic::{ClientError, ClientOptions, CredentialSource, Identity, Trust};

/// The data folder: as asked for, or the user's own for this program.
pub(crate) fn data_folder(asked: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(folder) = asked {
        return Ok(folder.clone());
    }
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    match base {
        Some(base) => Ok(base.join("tidegate")),
        None => Err(Failure::usage("there is no home folder to keep data in: name one with --data DIR")),
    }
}

/// The time of day, in seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How to reach the server.
pub(crate) fn client(args: &ServerArgs) -> Result<ClientOptions, Failure> {
    let input = |error| Failure::new(Exit::Input, error);
    let Some((&server, others)) = args.server.split_first() else {
        return Err(Failure::usage("no server is named: --server ADDR"));
    };
    let trust = match &args.ca {
        Some(file) => Trust::of_file(file),
        None => Trust::of_data(&data_folder(args.data.as_ref())?),
    };
    let trust = trust.map_err(input)?;
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some(Identity::of_files(cert, key).map_err(input)?),
        _ => None,
    };
    Ok(ClientOptions {
        identity,
        credential: args.token.clone().map(CredentialSource::File),
        server_name: args.server_name.clone(),
        give_up_after: Duration::from_nanos(args.give_up_after),
        others: others.to_vec(),
        ..ClientOptions::new(server, trust)
    })
}

/// A client's failure, with the exit code it ends with.
pub(crate) fn failure(error: ClientError) -> Failure {
    let exit = match &error {
        ClientError::Subscription(_) | ClientError::Limit(_) => Exit::Usage,
        _ => Exit::Input,
    };
    Failure::new(exit, error)
}
