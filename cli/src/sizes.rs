//! Sizes on the command line: `--dim batch=1..64`, `--shape x=1x3xHxW`.

use silure::onnx::Size;

/// `NAME=SIZE`.
pub fn dim(text: &str) -> Result<(String, Size), String> {
    let (name, value) = pair(text)?;
    Ok((name, size(value)?))
}

/// `NAME=SIZExSIZE…` or `NAME=SIZE,SIZE…` (with commas, names may hold an `x`).
pub fn shape(text: &str) -> Result<(String, Vec<Size>), String> {
    let (name, value) = pair(text)?;
    let parts: Vec<&str> = match (value.is_empty(), value.contains(',')) {
        (true, _) => vec![],
        (_, true) => value.split(',').collect(),
        _ => value.split('x').collect(),
    };
    Ok((name, parts.into_iter().map(|p| size(p.trim())).collect::<Result<_, _>>()?))
}

/// `NAME=N`: a size that a run has.
pub fn binding(text: &str) -> Result<(String, u64), String> {
    let (name, value) = pair(text)?;
    value.parse().map(|n| (name, n)).map_err(|_| format!("needed a number, present `{value}`"))
}

/// `NAME=LO..HI`: the values of a random input, both ends included.
pub fn range(text: &str) -> Result<(String, (f64, f64)), String> {
    let (name, value) = pair(text)?;
    Ok((name, bounds(value)?))
}

/// `LO..HI` as numbers, `LO <= HI`.
pub fn bounds(text: &str) -> Result<(f64, f64), String> {
    let parts = text.split_once("..").map(|(a, b)| (a.parse::<f64>(), b.parse::<f64>()));
    match parts {
        Some((Ok(lo), Ok(hi))) if lo <= hi && lo.is_finite() && hi.is_finite() => Ok((lo, hi)),
        _ => Err(format!("needed LO..HI, present `{text}`")),
    }
}

/// Seconds, for `--timeout`.
pub fn timeout(text: &str) -> Result<std::time::Duration, String> {
    let d = text.parse().ok().and_then(|s| std::time::Duration::try_from_secs_f64(s).ok());
    d.ok_or_else(|| format!("needed seconds, present `{text}`"))
}

/// `NAME=@FILE`.
pub fn named_file(text: &str) -> Result<(String, std::path::PathBuf), String> {
    match text.rsplit_once("=@") {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.into(), file.into()))
        }
        _ => Err(format!("needed NAME=@FILE.npy, present `{text}`")),
    }
}

/// Splits at the last `=`: names of a model may hold one.
fn pair(text: &str) -> Result<(String, &str), String> {
    match text.rsplit_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value)),
        _ => Err(format!("needed NAME=VALUE, present `{text}`")),
    }
}

/// `4`, `1..64`, `1..512@8` (multiples of 8), `1..` or the name of another dim.
fn size(text: &str) -> Result<Size, String> {
    let bad = || format!("needed N, LO..HI, LO..HI@MULTIPLE or a name, present `{text}`");
    let number = |s: &str| s.parse::<i64>().ok().filter(|n| *n >= 0).ok_or_else(bad);
    if let Some((lo, rest)) = text.split_once("..") {
        let (hi, multiple) = rest.split_once('@').unwrap_or((rest, "1"));
        let max = if hi.is_empty() { i64::MAX } else { number(hi)? };
        let (min, multiple) = (number(lo)?, number(multiple)?);
        if min > max || multiple < 1 {
            return Err(bad());
        }
        return Ok(Size::Range { min, max, multiple });
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return number(text).map(Size::Fixed);
    }
    if text.is_empty() || text.contains('@') {
        return Err(bad());
    }
    Ok(Size::Named(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims_are_numbers_ranges_multiples_and_names() {
        assert_eq!(dim("b=4"), Ok(("b".into(), Size::Fixed(4))));
        let range = |min, max, multiple| Size::Range { min, max, multiple };
        assert_eq!(dim("s=1..512@8").unwrap().1, range(1, 512, 8));
        assert_eq!(dim("s=1..").unwrap().1, range(1, i64::MAX, 1));
        assert_eq!(dim("a=b=t").unwrap(), ("a=b".into(), Size::Named("t".into())));
        for bad in
            ["b", "=4", "b=", "b=-1", "b=4..1", "b=1..8@0", "b=99999999999999999999", "b=1..x"]
        {
            assert!(dim(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shapes_are_lists() {
        let (name, s) = shape("x=1x3xHx224").unwrap();
        assert_eq!((name.as_str(), s.len()), ("x", 4));
        assert_eq!(s[2], Size::Named("H".into()));
        assert_eq!(shape("x=max,2").unwrap().1[0], Size::Named("max".into()));
        assert_eq!(shape("x=").unwrap().1, []);
    }

    #[test]
    fn ranges_and_times() {
        assert_eq!(range("x=-1..1"), Ok(("x".into(), (-1.0, 1.0))));
        assert!(range("x=1..0").is_err() && range("x=a..b").is_err() && range("x=nan..1").is_err());
        assert!(timeout("-1").is_err() && timeout("1e999").is_err());
        assert_eq!(timeout("0.5").unwrap().as_millis(), 500);
    }
}
