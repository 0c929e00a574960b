//! Kubernetes' resource quantities, such as `500m`, `1.5Gi` and `2e3`.
//!
//! Exact decimals of up to 38 digits. Kubernetes has more digits; what doesn't fit here is an error, never a rounding.

use std::cmp::Ordering;
use std::fmt;

/// The digits that Kubernetes keeps in an i64, and so as what `asInteger` can give.
const SHORT_DIGITS: usize = 18;
/// What is smaller is rounded away from zero.
const NANO: i32 = -9;

/// A quantity: `mantissa * 10^exponent`.
#[derive(Clone, Debug)]
pub(super) struct Quantity {
    mantissa: i128,
    exponent: i32,
    form: Form,
    /// Kubernetes keeps it in an i64: only such a quantity counts as an integer.
    short: bool,
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

impl From<i64> for Quantity {
    fn from(value: i64) -> Self {
        Quantity {
            mantissa: value.into(),
            exponent: 0,
            form: Form::Exponent,
            short: true,
        }
    }
}

/// Whether a number that is not negative is above a whole one.
fn is_above(mantissa: i128, exponent: i32, limit: i128) -> bool {
    let power = 10i128.pow(exponent.unsigned_abs().min(37));
    if exponent < 0 {
        mantissa / power >= limit
    } else {
        mantissa.checked_mul(power).is_none_or(|mantissa| mantissa > limit)
    }
}

fn out_of_range() -> String {
    "a quantity out of range: it must have at most 38 digits".to_owned()
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("not a quantity such as 500m, 1.5Gi or 2e3: {text:?}");
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let number_end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if text.is_empty() || fraction.contains('.') {
            return Err(refused());
        }
        let (form, scale) = suffix_scale(suffix).ok_or_else(refused)?;
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let digits = format!("{whole}{fraction}");
        let mut mantissa: i128 = digits.parse().map_err(|_| out_of_range())?;
        let mut exponent = -i32::try_from(fraction.len()).map_err(|_| refused())?;
        let mut short = digits.len() <= SHORT_DIGITS;
        match scale {
            Scale::Ten(power) => exponent = exponent.checked_add(power).ok_or_else(out_of_range)?,
            Scale::Two(power) => {
                mantissa = mantissa.checked_mul(1 << power).ok_or_else(out_of_range)?;
                let kubernetes_digits = 15 - whole.len() as i32 - (power as f32 * 3.0 / 10.0) as i32 - 1;
                short = fraction.is_empty() && kubernetes_digits >= 0;
            }
        }
        short &= exponent >= NANO && i64::try_from(mantissa).is_ok();
        if exponent < NANO {
            let drop = u32::try_from(NANO - exponent).unwrap_or(u32::MAX);
            mantissa = match 10i128.checked_pow(drop) {
                Some(unit) => mantissa / unit + i128::from(mantissa % unit != 0),
                None => i128::from(mantissa != 0),
            };
            exponent = NANO;
        }
        let largest = i128::from(i64::MAX);
        if form == Form::Binary && !short && is_above(mantissa, exponent, largest) {
            // The most that Kubernetes lets a binary quantity be.
            (mantissa, exponent) = (largest, 0);
        }
        if text.starts_with('-') {
            mantissa = -mantissa;
        }
        Ok(Quantity {
            mantissa,
            exponent,
            form,
            short,
        })
    }

    pub fn add(&self, other: &Self) -> Result<Self, String> {
        let form = if self.mantissa == 0 { other.form } else { self.form };
        let short = self.short && other.short;
        if other.mantissa == 0 {
            return Ok(Quantity {
                form,
                short,
                ..self.clone()
            });
        }
        if self.mantissa == 0 {
            return Ok(Quantity {
                form,
                short,
                ..other.clone()
            });
        }
        let exponent = self.exponent.min(other.exponent);
        let mantissa = self
            .at(exponent)
            .zip(other.at(exponent))
            .and_then(|(a, b)| a.checked_add(b))
            .ok_or_else(out_of_range)?;
        Ok(Quantity {
            mantissa,
            exponent,
            form,
            short: short && i64::try_from(mantissa).is_ok(),
        })
    }

    pub fn negated(&self) -> Result<Self, String> {
        Ok(Quantity {
            mantissa: self.mantissa.checked_neg().ok_or_else(out_of_range)?,
            ..self.clone()
        })
    }

    pub fn sign(&self) -> i64 {
        self.mantissa.signum() as i64
    }

    pub fn as_integer(&self) -> Option<i64> {
        if !self.short || self.exponent < 0 {
            return None;
        }
        self.at(0).and_then(|value| i64::try_from(value).ok())
    }

    pub fn as_approximate_float(&self) -> f64 {
        // The parser of decimals gives the nearest double of a power of ten, or infinity.
        let power: f64 = format!("1e{}", self.exponent).parse().unwrap_or(f64::INFINITY);
        if self.mantissa == 0 {
            0.0
        } else {
            self.mantissa as f64 * power
        }
    }

    /// The mantissa for a smaller exponent.
    fn at(&self, exponent: i32) -> Option<i128> {
        let power = u32::try_from(self.exponent.checked_sub(exponent)?).ok()?;
        match self.mantissa {
            0 => Some(0),
            mantissa => mantissa.checked_mul(10i128.checked_pow(power)?),
        }
    }

    /// Without the zeros at its end.
    fn reduced(&self) -> (i128, i32) {
        let (mut mantissa, mut exponent) = (self.mantissa, self.exponent);
        while mantissa != 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            exponent = exponent.saturating_add(1);
        }
        (mantissa, exponent)
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.sign().cmp(&other.sign());
        if signs.is_ne() || self.mantissa == 0 {
            return signs;
        }
        let (a, a_exponent) = self.reduced();
        let (b, b_exponent) = other.reduced();
        // Where the first digit stands decides, then the digits.
        let digits = |m: i128| i64::from(m.unsigned_abs().ilog10());
        let place = (digits(a) + i64::from(a_exponent)).cmp(&(digits(b) + i64::from(b_exponent)));
        let magnitude = place.then_with(|| {
            // Of the same place, so the exponents differ by no more than there are digits.
            let low = a_exponent.min(b_exponent);
            let scaled = |m: i128, e: i32| m.unsigned_abs() * 10u128.pow(u32::try_from(e - low).unwrap_or(0));
            scaled(a, a_exponent).cmp(&scaled(b, b_exponent))
        });
        if a < 0 { magnitude.reverse() } else { magnitude }
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Quantity {}

/// The canonical form, as the API server writes it.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mantissa == 0 {
            return f.write_str("0");
        }
        if self.form == Form::Binary
            && let Some(whole) = self.whole()
            && whole.abs() >= 1024
        {
            let (mut value, mut suffix) = (whole, 0);
            while value % 1024 == 0 && suffix < BINARY.len() {
                value /= 1024;
                suffix += 1;
            }
            return write!(f, "{value}{}", if suffix == 0 { "" } else { BINARY[suffix - 1] });
        }
        let (mut mantissa, mut exponent) = self.reduced();
        while exponent % 3 != 0 {
            // A reduced mantissa of 38 digits may not take another zero: then it is written as it is.
            match mantissa.checked_mul(10) {
                Some(larger) => (mantissa, exponent) = (larger, exponent - 1),
                None => return write!(f, "{mantissa}e{exponent}"),
            }
        }
        match DECIMAL.iter().find(|(_, power)| *power == exponent) {
            Some((suffix, _)) if self.form != Form::Exponent => write!(f, "{mantissa}{suffix}"),
            _ if exponent == 0 => write!(f, "{mantissa}"),
            _ => write!(f, "{mantissa}e{exponent}"),
        }
    }
}

impl Quantity {
    fn whole(&self) -> Option<i128> {
        let (mantissa, exponent) = self.reduced();
        if exponent < 0 {
            None
        } else {
            Quantity {
                mantissa,
                exponent,
                ..self.clone()
            }
            .at(0)
        }
    }
}

const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

enum Scale {
    Ten(i32),
    Two(u32),
}

fn suffix_scale(suffix: &str) -> Option<(Form, Scale)> {
    if let Some((_, power)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Some((Form::Decimal, Scale::Ten(*power)));
    }
    if let Some(index) = BINARY.iter().position(|known| *known == suffix) {
        return Some((Form::Binary, Scale::Two(10 * (index as u32 + 1))));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    Some((Form::Exponent, Scale::Ten(exponent.parse().ok()?)))
}
