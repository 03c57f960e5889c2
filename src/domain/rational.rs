//! Exact ratios: frame rates, time bases, aspect ratios. Floats would drift (29.97 is 30000/1001).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A positive ratio in lowest terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rational {
    num: u32,
    den: u32,
}

/// A text or pair that is not a positive ratio.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a positive ratio such as \"30000/1001\" or \"25\"")]
pub struct InvalidRational;

impl Rational {
    /// 1/1.
    pub const ONE: Self = Self { num: 1, den: 1 };

    /// `num/den` in lowest terms; both must be positive.
    pub fn new(num: u32, den: u32) -> Result<Self, InvalidRational> {
        if num == 0 || den == 0 {
            return Err(InvalidRational);
        }
        let g = gcd(num, den);
        Ok(Self { num: num / g, den: den / g })
    }

    /// The numerator.
    #[must_use]
    pub const fn num(self) -> u32 {
        self.num
    }

    /// The denominator.
    #[must_use]
    pub const fn den(self) -> u32 {
        self.den
    }

    /// As a float, for display and estimates only.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }

    /// Half of it.
    #[must_use]
    pub fn halved(self) -> Self {
        let (num, den) = if self.num.is_multiple_of(2) {
            (self.num / 2, self.den)
        } else {
            (self.num, self.den.saturating_mul(2))
        };
        Self { num, den }
    }
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

impl FromStr for Rational {
    type Err = InvalidRational;

    /// Reads `30000/1001`, `64:45` or `25`.
    fn from_str(text: &str) -> Result<Self, InvalidRational> {
        let (num, den) = text.split_once(['/', ':']).unwrap_or((text, "1"));
        let parse = |part: &str| part.trim().parse::<u32>().map_err(|_| InvalidRational);
        Self::new(parse(num)?, parse(den)?)
    }
}

impl TryFrom<String> for Rational {
    type Error = InvalidRational;
    fn try_from(text: String) -> Result<Self, InvalidRational> {
        text.parse()
    }
}

impl From<Rational> for String {
    fn from(ratio: Rational) -> Self {
        ratio.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_terms_and_both_spellings() {
        assert_eq!("60000/2002".parse::<Rational>().unwrap(), Rational::new(30000, 1001).unwrap());
        assert_eq!("64:45".parse::<Rational>().unwrap().to_string(), "64/45");
        assert_eq!("25".parse::<Rational>().unwrap().to_string(), "25/1");
        for bad in ["0/1", "1/0", "", "x", "-1/2", "1/2/3"] {
            assert!(bad.parse::<Rational>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn halving_keeps_lowest_terms() {
        assert_eq!(Rational::new(120, 1).unwrap().halved(), Rational::new(60, 1).unwrap());
        assert_eq!(Rational::new(25, 1).unwrap().halved().to_string(), "25/2");
    }
}
