//! How well the change point detector does on series that its settings were not chosen by.
//!
//! `cargo run --release -p tidegate-regime --example tcpd_folds -- DIR`, where DIR holds `<series>.json` and
//! `annotations.json` of the Turing Change Point Dataset. Prints mean F1 and covering of the shipped settings; those when
//! each series is judged with the settings of a grid that do best on all the others; and how far the shipped ones move
//! when series are reversed in time or start later, for which nothing was chosen.
#![forbid(unsafe_code)]

use serde_json::Value;
use std::error::Error;
use std::path::Path;
use tidegate_regime::{SegmentOptions, Segments};

/// Places by which a found point may miss.
const MARGIN: usize = 5;

struct Series {
    length: usize,
    /// Dimension by observation; NaN is missing.
    values: Vec<Vec<f64>>,
    /// What each person marked.
    people: Vec<Vec<usize>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: tcpd_folds DIR")?;
    let all = read(Path::new(&folder))?;
    let shipped = SegmentOptions::default();
    let mean = |scores: &[[f64; 2]]| {
        [0, 1].map(|at| scores.iter().map(|score| score[at]).sum::<f64>() / scores.len() as f64)
    };
    let line = |name: &str, scores: &[[f64; 2]]| {
        let [f1, covering] = mean(scores);
        println!("{name:42} F1 {f1:.3}  covering {covering:.3}");
    };
    let judge = |options: &SegmentOptions, all: &[Series]| -> Result<Vec<[f64; 2]>, Box<dyn Error>> {
        all.iter().map(|series| score(series, options)).collect()
    };
    let shipped_scores = judge(&shipped, &all)?;
    line(&format!("shipped, {} series", all.len()), &shipped_scores);

    let mut grid = Vec::new();
    for penalty in [9.0, 11.0, 13.0, 15.0, 17.0] {
        for floor in [0.15, 0.2, 0.25, 0.3, 0.35] {
            for confirm in [4, 6, 8] {
                grid.push(SegmentOptions { penalty, floor, confirm, ..shipped });
            }
        }
    }
    let scores = grid.iter().map(|options| judge(options, &all)).collect::<Result<Vec<_>, _>>()?;
    let left_out: Vec<[f64; 2]> = (0..all.len())
        .map(|series| {
            let rest = |scores: &Vec<[f64; 2]>| {
                let others = scores.iter().enumerate().filter(|(at, _)| *at != series);
                others.map(|(_, [f1, covering])| f1 + covering).sum::<f64>()
            };
            let best = scores.iter().max_by(|a, b| rest(a).total_cmp(&rest(b)));
            best.map_or([0.0; 2], |scores| scores[series])
        })
        .collect();
    line(&format!("one series left out, {} settings", grid.len()), &left_out);
    let means: Vec<[f64; 2]> = scores.iter().map(|scores| mean(scores)).collect();
    for (at, name) in [(0, "F1"), (1, "covering")] {
        let mut sorted: Vec<f64> = means.iter().map(|mean| mean[at]).collect();
        sorted.sort_by(f64::total_cmp);
        let (least, middle, most) = (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        println!("{name} over the settings: least {least:.3}, median {middle:.3}, most {most:.3}");
    }
    for (name, reversed, dropped) in
        [("reversed", true, 0), ("from the 4th observation", false, 3), ("reversed, from the 8th", true, 7)]
    {
        let changed: Vec<Series> = all.iter().map(|series| change(series, reversed, dropped)).collect();
        line(&format!("shipped, {name}"), &judge(&shipped, &changed)?);
    }
    Ok(())
}

fn read(folder: &Path) -> Result<Vec<Series>, Box<dyn Error>> {
    let json = |name: &str| -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_str(&std::fs::read_to_string(folder.join(name))?)?)
    };
    let annotations = json("annotations.json")?;
    let annotations = annotations.as_object().ok_or("annotations.json is no object")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    annotations
        .iter()
        .map(|(name, people)| {
            let series = json(&format!("{name}.json"))?;
            let numbers = |dimension: &Value| -> Vec<f64> {
                list(&dimension["raw"]).iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect()
            };
            let values: Vec<Vec<f64>> = list(&series["series"]).iter().map(numbers).collect();
            let people = people.as_object().ok_or("annotations.json names no people")?;
            let places =
                |value: &Value| list(value).iter().filter_map(|at| Some(at.as_u64()? as usize)).collect();
            let people = people.values().map(places).collect();
            Ok(Series { length: values.first().map_or(0, Vec::len), values, people })
        })
        .collect()
}

/// The series as it would be backwards, or without its beginning.
fn change(series: &Series, reversed: bool, dropped: usize) -> Series {
    let dropped = dropped.min(series.length / 10);
    let values = series.values.iter().map(|values| {
        let mut values = values.clone();
        if reversed {
            values.reverse();
        }
        values.split_off(dropped)
    });
    let moved = |place: &usize| {
        let place = if reversed { series.length - place } else { *place };
        (place > dropped && place < series.length).then(|| place - dropped)
    };
    let people = series.people.iter().map(|places| {
        let mut places: Vec<usize> = places.iter().filter_map(moved).collect();
        places.sort_unstable();
        places
    });
    Series { length: series.length - dropped, values: values.collect(), people: people.collect() }
}

fn score(series: &Series, options: &SegmentOptions) -> Result<[f64; 2], Box<dyn Error>> {
    let mut segments = Segments::new(SegmentOptions { dimensions: series.values.len(), ..*options })?;
    let mut found = vec![0];
    let mut row = vec![f64::NAN; series.values.len()];
    for at in 0..series.length {
        row.iter_mut().zip(&series.values).for_each(|(value, values)| *value = values[at]);
        found.extend(segments.push(&row).map(|change| change.index as usize));
    }
    Ok([f1(series, &found), covering(series, &found)])
}

/// Marks with the beginning among them, each once.
fn with_start(places: &[usize]) -> Vec<usize> {
    let mut places: Vec<usize> = places.iter().copied().chain([0]).collect();
    places.sort_unstable();
    places.dedup();
    places
}

fn matched(truth: &[usize], found: &[usize]) -> f64 {
    let mut free = found.to_vec();
    let mut hits = 0.0;
    for place in truth {
        let near = free.iter().enumerate().map(|(at, found)| (place.abs_diff(*found), *found, at));
        if let Some((_, _, at)) = near.filter(|(distance, ..)| *distance <= MARGIN).min() {
            free.remove(at);
            hits += 1.0;
        }
    }
    hits
}

/// Precision against everybody's marks together, recall as the mean over people.
fn f1(series: &Series, found: &[usize]) -> f64 {
    let found = with_start(found);
    let precision = matched(&with_start(&series.people.concat()), &found) / found.len() as f64;
    let recalls = series.people.iter().map(|places| {
        let truth = with_start(places);
        matched(&truth, &found) / truth.len() as f64
    });
    let recall = recalls.sum::<f64>() / series.people.len() as f64;
    2.0 * precision * recall / (precision + recall)
}

/// Best overlap of each true piece with a found one, weighted by length, as the mean over people.
fn covering(series: &Series, found: &[usize]) -> f64 {
    let pieces = |places: &[usize]| -> Vec<(usize, usize)> {
        let mut edges = with_start(places);
        edges.retain(|edge| *edge < series.length);
        edges.push(series.length);
        edges.windows(2).map(|pair| (pair[0], pair[1])).collect()
    };
    let mine = pieces(found);
    let best = |(low, high): (usize, usize)| {
        let overlap = mine.iter().map(|&(from, to)| {
            let common = high.min(to).saturating_sub(low.max(from)) as f64;
            common / (high.max(to) - low.min(from)) as f64
        });
        (high - low) as f64 * overlap.fold(0.0, f64::max)
    };
    let sum: f64 = series.people.iter().flat_map(|places| pieces(places)).map(best).sum();
    sum / series.length as f64 / series.people.len() as f64
}
