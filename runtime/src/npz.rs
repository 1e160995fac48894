//! NumPy `.npz` files: zip archives of `.npy` members.
//!
//! A sequence travels as an archive with keys `0`, `1`, …; an absent optional as one without keys.
//! Reads stored and deflated members, zip64 included; writes stored members, with the same bytes
//! for the same arrays. Sizes are believed only as far as the file can hold them.
//!
//! ```
//! use silure_runtime::{npz, Tensor};
//! let t = Tensor::f32(&[1], &[2.0]).unwrap();
//! let file = npz::encode(&[("0".into(), &t)]).unwrap();
//! assert_eq!(npz::decode("x.npz", &file).unwrap()[0].0, "0");
//! ```

use crate::error::{Error, Result};
use crate::npy::{self, Array};
use crate::tensor::Tensor;

/// Deflate cannot expand by more than this.
const MAX_RATIO: u64 = 1032;

fn bad(
    path: &str,
    field: &'static str,
    needed: impl std::fmt::Display,
    present: impl std::fmt::Display,
) -> Error {
    Error::Array {
        path: path.into(),
        field,
        needed: needed.to_string(),
        present: present.to_string(),
    }
}

fn word<const N: usize>(bytes: &[u8], at: u64) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let b = bytes.get(at..at.checked_add(N)?)?;
    let mut w = [0u8; 8];
    w[..N].copy_from_slice(b);
    Some(u64::from_le_bytes(w))
}

fn slice(bytes: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(at).ok()?..usize::try_from(at.checked_add(len)?).ok()?)
}

/// Position and number of the central directory's records.
fn directory(b: &[u8]) -> Option<(u64, u64)> {
    // The end record is last, but for a comment of at most 65535 bytes.
    let last = b.len().checked_sub(22)?;
    let first = last.saturating_sub(65535);
    let end = (first..=last).rev().find(|&i| b[i..].starts_with(b"PK\x05\x06"))? as u64;
    let (count, at) = (word::<2>(b, end + 10)?, word::<4>(b, end + 16)?);
    if (count != 0xFFFF && at != 0xFFFF_FFFF) || end < 20 {
        return Some((at, count));
    }
    if word::<4>(b, end - 20)? != 0x0706_4B50 {
        return Some((at, count));
    }
    let record = word::<8>(b, end - 12)?;
    if word::<4>(b, record)? != 0x0606_4B50 {
        return None;
    }
    Some((word::<8>(b, record.checked_add(48)?)?, word::<8>(b, record.checked_add(32)?)?))
}

/// One member: name, method, CRC, compressed and plain size, position of its local header.
struct Member<'a> {
    name: &'a [u8],
    method: u64,
    crc: u64,
    packed: u64,
    plain: u64,
    at: u64,
}

/// The member whose record is at `at`, and where the next record is.
fn member(b: &[u8], at: u64) -> Option<(Member<'_>, u64)> {
    if word::<4>(b, at)? != 0x0201_4B50 {
        return None;
    }
    let [n, e, c] = [word::<2>(b, at + 28)?, word::<2>(b, at + 30)?, word::<2>(b, at + 32)?];
    let mut m = Member {
        name: slice(b, at + 46, n)?,
        method: word::<2>(b, at + 10)?,
        crc: word::<4>(b, at + 16)?,
        packed: word::<4>(b, at + 20)?,
        plain: word::<4>(b, at + 24)?,
        at: word::<4>(b, at + 42)?,
    };
    let extra = slice(b, at + 46 + n, e)?;
    let mut x = 0u64;
    while let (Some(tag), Some(len)) = (word::<2>(extra, x), word::<2>(extra, x + 2)) {
        if tag == 1 {
            // Zip64: the fields that did not fit, in this order.
            let mut f = x + 4;
            for field in [&mut m.plain, &mut m.packed, &mut m.at] {
                if *field == 0xFFFF_FFFF {
                    *field = word::<8>(extra, f)?;
                    f += 8;
                }
            }
        }
        x += 4 + len;
    }
    Some((m, at + 46 + n + e + c))
}

/// Reads an archive: its members in order, names without `.npy`.
pub fn decode(path: &str, file: &[u8]) -> Result<Vec<(String, Array)>> {
    let broken = |what: &'static str| bad(path, what, "a whole zip archive", "a damaged one");
    let (mut at, count) = directory(file).ok_or_else(|| broken("end of archive"))?;
    let mut out: Vec<(String, Array)> = Vec::new();
    let mut packed = 0u64;
    for _ in 0..count {
        let (m, next) = member(file, at).ok_or_else(|| broken("central directory"))?;
        at = next;
        let name = std::str::from_utf8(m.name).map_err(|e| bad(path, "member", "UTF-8", e))?;
        let inner = format!("{path}[{name}]");
        let header = word::<4>(file, m.at).filter(|&w| w == 0x0403_4B50);
        let lens = header.and_then(|_| {
            Some(word::<2>(file, m.at.checked_add(26)?)? + word::<2>(file, m.at + 28)?)
        });
        let data = lens.and_then(|l| slice(file, m.at + 30 + l, m.packed));
        let data = data.ok_or_else(|| broken("member"))?;
        // Members that share bytes could be any number of times the file.
        packed = packed.saturating_add(m.packed);
        if packed > file.len() as u64 {
            let most = format!("members of at most {} bytes together", file.len());
            return Err(bad(path, "size", most, packed));
        }
        if m.plain > m.packed.saturating_mul(MAX_RATIO) {
            let most = format!("at most {} bytes", m.packed.saturating_mul(MAX_RATIO));
            return Err(bad(&inner, "size", most, m.plain));
        }
        let plain = match m.method {
            0 => data.to_vec(),
            8 => miniz_oxide::inflate::decompress_to_vec_with_limit(data, m.plain as usize)
                .map_err(|e| bad(&inner, "deflated data", "a whole stream", e))?,
            other => return Err(bad(&inner, "method", "0 (stored) or 8 (deflated)", other)),
        };
        if plain.len() as u64 != m.plain || crc32(&plain) as u64 != m.crc {
            let needed = format!("{} bytes with CRC {:08x}", m.plain, m.crc);
            let present = format!("{} bytes with CRC {:08x}", plain.len(), crc32(&plain));
            return Err(bad(&inner, "data", needed, present));
        }
        let key = name.strip_suffix(".npy").unwrap_or(name);
        if out.iter().any(|(k, _)| k == key) {
            return Err(bad(&inner, "member", "a name of its own", key));
        }
        out.push((key.to_string(), npy::decode(&inner, &plain)?));
    }
    Ok(out)
}

/// The archive of named tensors.
pub fn encode(members: &[(String, &Tensor)]) -> Result<Vec<u8>> {
    let (mut out, mut central) = (Vec::new(), Vec::new());
    let fits =
        |n: usize, field| u32::try_from(n).map_err(|_| bad("archive", field, "less than 4 GiB", n));
    for (key, t) in members {
        let name = format!("{key}.npy");
        let data = npy::encode(t)?;
        let at = fits(out.len(), "size")?;
        let mut common = Vec::new();
        // Version 2.0, no flags, stored, 1980-01-01 00:00.
        for w in [20u16, 0, 0, 0, 0x21] {
            common.extend(w.to_le_bytes());
        }
        let len = fits(data.len(), "member")?;
        for w in [crc32(&data), len, len] {
            common.extend(w.to_le_bytes());
        }
        let n = u16::try_from(name.len())
            .map_err(|_| bad("archive", "name", "at most 65535 bytes", name.len()))?;
        common.extend(n.to_le_bytes());
        common.extend([0, 0]);
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.bytes());
        out.extend(&data);
        central.extend(b"PK\x01\x02\x14\x00");
        central.extend(&common);
        central.extend([0; 10]);
        central.extend(at.to_le_bytes());
        central.extend(name.bytes());
    }
    let count = u16::try_from(members.len())
        .ok()
        .filter(|&n| n < u16::MAX)
        .ok_or_else(|| bad("archive", "members", "less than 65535", members.len()))?;
    let (at, size) = (fits(out.len(), "size")?, fits(central.len(), "directory")?);
    out.extend(central);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    Ok(out)
}

/// CRC-32 (IEEE 802.3, reflected).
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut i = 0;
        while i < 256 {
            let mut c = i as u32;
            let mut k = 0;
            while k < 8 {
                c = if c & 1 != 0 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 };
                k += 1;
            }
            table[i] = c;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |c, &b| TABLE[((c ^ b as u32) & 0xFF) as usize] ^ (c >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use silure_types::Elem;

    #[test]
    fn crc_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn sequences_come_back_and_damage_is_found() {
        let t = [Tensor::f32(&[2], &[1.0, 2.0]).unwrap(), Tensor::i64(&[], &[7]).unwrap()];
        let members = [("0".to_string(), &t[0]), ("1".to_string(), &t[1])];
        let file = encode(&members).unwrap();
        let back = decode("x.npz", &file).unwrap();
        assert_eq!(back.len(), 2);
        assert_eq!((back[1].0.as_str(), &back[1].1.dtype[..]), ("1", "i8"));
        assert_eq!(back[0].1.clone().into_tensor(Elem::F32).unwrap().bytes(), t[0].bytes());
        assert!(decode("x.npz", &encode(&[]).unwrap()).unwrap().is_empty());
        for n in 0..file.len() {
            assert!(decode("x", &file[..n]).is_err(), "truncated to {n}");
        }
        for i in 0..file.len() {
            for bit in 0..8 {
                let mut f = file.clone();
                f[i] ^= 1 << bit;
                let _ = decode("x", &f);
            }
        }
    }

    #[test]
    fn deflated_members_are_read_with_a_limit() {
        let npy = npy::encode(&Tensor::zeros(Elem::F32, &[1000]).unwrap()).unwrap();
        let packed = miniz_oxide::deflate::compress_to_vec(&npy, 6);
        let file = |plain: u32| {
            let mut f = b"PK\x03\x04".to_vec();
            f.extend([0; 22]);
            f.extend([1, 0, 0, 0, b'a']);
            f.extend(&packed);
            let at = f.len() as u32;
            f.extend(b"PK\x01\x02\x14\0\x14\0\0\0\x08\0\0\0\0\0");
            for w in [crc32(&npy), packed.len() as u32, plain] {
                f.extend(w.to_le_bytes());
            }
            f.extend([1, 0]);
            f.extend([0; 16]);
            f.push(b'a');
            let size = f.len() as u32 - at;
            f.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
            f.extend(size.to_le_bytes());
            f.extend(at.to_le_bytes());
            f.extend([0, 0]);
            f
        };
        let good = decode("x", &file(npy.len() as u32)).unwrap();
        assert_eq!((good[0].0.as_str(), &good[0].1.shape[..]), ("a", &[1000][..]));
        assert!(decode("x", &file(100)).is_err());
        assert!(decode("x", &file(u32::MAX - 1)).unwrap_err().to_string().contains("at most"));
    }
}
