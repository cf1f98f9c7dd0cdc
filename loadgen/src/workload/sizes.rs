//! Record sizes: one size, or a distribution.

use serde::Serialize;

use crate::{rng::Rng, workload::units::parse_bytes};

const SIZE_MAX: usize = 64 << 20;

/// Sizes of values in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sizes {
    Fixed(usize),
    Uniform {
        min: usize,
        max: usize,
    },
    /// The logarithm is normal; cut at `min` and `max`.
    Lognormal {
        median: f64,
        sigma: f64,
        min: usize,
        max: usize,
    },
    /// Sizes with their shares, which add up to 1.
    Mix(Vec<(usize, f64)>),
}

impl Sizes {
    /// `1024`, `uniform:100-2000`, `lognormal:median=200,sigma=1.0,min=24,max=100000`, `mix:100*0.9,10000*0.1`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let sizes = match text.split_once(':') {
            None => Self::Fixed(size(text)?),
            Some(("uniform", range)) => {
                let (min, max) = range.split_once('-').ok_or("uniform:MIN-MAX")?;
                Self::Uniform { min: size(min)?, max: size(max)? }
            }
            Some(("lognormal", list)) => parse_lognormal(list)?,
            Some(("mix", list)) => parse_mix(list)?,
            Some((other, _)) => {
                return Err(format!("a size, uniform:…, lognormal:… or mix:…, not {other:?}"));
            }
        };
        if sizes.largest() > SIZE_MAX || sizes.smallest() > sizes.largest() {
            return Err(format!("sizes from small to large, at most 64MiB, not {text:?}"));
        }
        Ok(sizes)
    }

    pub fn draw(&self, rng: &mut Rng) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform { min, max } => min + rng.below((max - min + 1) as u64) as usize,
            Self::Lognormal { median, sigma, min, max } => {
                let size = median * (sigma * rng.normal()).exp();
                (size as usize).clamp(*min, *max)
            }
            Self::Mix(parts) => {
                let mut at = rng.unit();
                for (size, share) in parts {
                    if at < *share {
                        return *size;
                    }
                    at -= share;
                }
                parts.last().map_or(0, |(size, _)| *size)
            }
        }
    }

    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(size) => *size as f64,
            Self::Uniform { min, max } => (min + max) as f64 / 2.0,
            Self::Mix(parts) => parts.iter().map(|(size, share)| *size as f64 * share).sum(),
            Self::Lognormal { .. } => {
                // The cut at both ends has no handy closed form; a fixed seed gives the same mean every time.
                let mut rng = Rng::new(1, 1);
                let draws = 100_000;
                (0..draws).map(|_| self.draw(&mut rng) as f64).sum::<f64>() / f64::from(draws)
            }
        }
    }

    pub fn smallest(&self) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform { min, .. } | Self::Lognormal { min, .. } => *min,
            Self::Mix(parts) => parts.iter().map(|(size, _)| *size).min().unwrap_or(0),
        }
    }

    pub fn largest(&self) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform { max, .. } | Self::Lognormal { max, .. } => *max,
            Self::Mix(parts) => parts.iter().map(|(size, _)| *size).max().unwrap_or(0),
        }
    }
}

fn size(text: &str) -> Result<usize, String> {
    parse_bytes(text).map(|bytes| bytes as usize)
}

fn parse_lognormal(list: &str) -> Result<Sizes, String> {
    let (mut median, mut sigma) = (None, None);
    let (mut min, mut max) = (crate::records::stamp::STAMP_BYTES, 1 << 20);
    for part in list.split(',') {
        let (key, value) = part.split_once('=').ok_or("lognormal:median=…,sigma=…[,min=…][,max=…]")?;
        match key.trim() {
            "median" => median = Some(size(value)? as f64),
            "sigma" => sigma = Some(value.trim().parse::<f64>().map_err(|_| "sigma: a number")?),
            "min" => min = size(value)?,
            "max" => max = size(value)?,
            other => {
                return Err(format!("lognormal has median, sigma, min and max, not {other:?}"));
            }
        }
    }
    let median = median.ok_or("lognormal needs a median")?;
    let sigma = sigma.ok_or("lognormal needs a sigma")?;
    Ok(Sizes::Lognormal { median, sigma, min, max })
}

fn parse_mix(list: &str) -> Result<Sizes, String> {
    let mut parts = Vec::new();
    for part in list.split(',') {
        let (bytes, share) = part.split_once('*').ok_or("mix:SIZE*SHARE,…")?;
        let share: f64 = share.trim().parse().map_err(|_| "mix: a share as 0.9")?;
        parts.push((size(bytes)?, share));
    }
    let total: f64 = parts.iter().map(|(_, share)| share).sum();
    if (total - 1.0).abs() > 1e-6 || parts.iter().any(|(_, share)| *share < 0.0) {
        return Err(format!("mix: the shares must add up to 1, not {total}"));
    }
    Ok(Sizes::Mix(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_stated_mean_and_bounds() {
        for text in ["300", "uniform:100-2000", "lognormal:median=200,sigma=1,max=5000", "mix:100*0.9,10000*0.1"] {
            let sizes = Sizes::parse(text).unwrap();
            let mut rng = Rng::new(9, 9);
            let drawn: Vec<usize> = (0..50_000).map(|_| sizes.draw(&mut rng)).collect();
            let mean = drawn.iter().sum::<usize>() as f64 / drawn.len() as f64;
            assert!((mean / sizes.mean() - 1.0).abs() < 0.03, "{text}: {mean} {}", sizes.mean());
            assert!(drawn.iter().all(|size| (sizes.smallest()..=sizes.largest()).contains(size)));
        }
    }

    #[test]
    fn refusals() {
        for text in ["uniform:5", "mix:100*0.9", "lognormal:median=3", "weibull:1", "uniform:900-100", "1GiB"] {
            assert!(Sizes::parse(text).is_err(), "{text}");
        }
    }
}
