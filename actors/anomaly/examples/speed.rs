//! What a value, an edge and a record cost: `cargo run --release -p tidegate-anomaly --example speed`.

use std::hint::black_box;
use std::time::Instant;
use tidegate_anomaly::{
    EdgeDetector, EdgeOptions, FeatureKind, MidasF, MidasOptions, RecordDetector, SeriesDetector,
    SeriesOptions,
};

fn noise(at: u64) -> u64 {
    at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

fn timed(name: &str, count: u64, mut work: impl FnMut(u64)) {
    let start = Instant::now();
    (0..count).for_each(&mut work);
    println!("{name:40} {:8.0} ns", start.elapsed().as_nanos() as f64 / count as f64);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("a series' state: {} bytes", size_of::<SeriesDetector>());
    let mut one = SeriesDetector::new(SeriesOptions::default())?;
    timed("value, one series", 2_000_000, |at| {
        black_box(one.push(at as i64 * 300, noise(at) as f64));
    });
    // One value per series per second, as a core with many series would see them: each from cold memory.
    let mut many = vec![SeriesDetector::new(SeriesOptions::default())?; 100_000];
    timed("value, 100,000 series in turn", 1_000_000, |at| {
        black_box(many[(at % 100_000) as usize].push((at / 100_000) as i64, noise(at) as f64));
    });
    let mut midas = MidasF::new(MidasOptions::default())?;
    timed("edge, MIDAS-F", 2_000_000, |at| {
        black_box(midas.push(noise(at) % 1_000, noise(at + 7) % 5_000, at / 200));
    });
    let mut edges = EdgeDetector::new(EdgeOptions::default())?;
    timed("edge, all parts", 2_000_000, |at| {
        black_box(edges.push(noise(at) % 1_000, noise(at + 7) % 5_000, at / 200).score);
    });
    let mut kinds = [FeatureKind::Count; 41];
    kinds[0] = FeatureKind::Category;
    let mut records = RecordDetector::new(&kinds)?;
    let mut features = [0.0; 41];
    for at in 0..4u64 {
        // Four rounds, so that the table has something in it.
        timed("record of 41 features", 50_000, |row| {
            for (place, feature) in (0u64..).zip(&mut features) {
                *feature = (noise(row * 41 + place + at) % 100) as f64;
            }
            black_box(records.push(&features).map(|verdict| verdict.score).unwrap_or_default());
        });
    }
    Ok(())
}
