//! Until when a certificate is good.

use std::path::Path;
use x509_parser::pem::Pem;

/// From when to when the first certificate of a PEM file is good, in seconds since 1970.
pub(super) fn validity(path: &Path) -> Result<(i64, i64), String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    for pem in Pem::iter_from_buffer(&bytes) {
        let pem = pem.map_err(|error| format!("it is damaged: {error}"))?;
        if pem.label == "CERTIFICATE" {
            let certificate = pem.parse_x509().map_err(|error| format!("it is damaged: {error}"))?;
            let validity = certificate.validity();
            return Ok((validity.not_before.timestamp(), validity.not_after.timestamp()));
        }
    }
    Err("it holds no certificate".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_certificates_are_understood_and_others_named() {
        let data = tempfile::tempdir().unwrap();
        tidegate_quic::tls::Identity::of_data(data.path()).unwrap();
        let path = data.path().join("tls/dev-cert.pem");
        let (from, to) = validity(&path).unwrap();
        assert!(from < to, "{from} {to}");
        assert_eq!(validity(&data.path().join("tls/dev-key.pem")), Err("it holds no certificate".to_owned()));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(validity(&path).unwrap_err().contains("damaged") || validity(&path).is_err());
        assert!(validity(&data.path().join("none")).is_err());
    }
}
