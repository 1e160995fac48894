use super::*;

#[test]
fn every_code_of_a_small_float_round_trips() {
    for &e in Elem::ALL.iter().filter(|e| e.is_float() && e.bits() <= 16) {
        for bits in 0..1u64 << e.bits() {
            let v = e.decode(bits);
            if v.is_nan() {
                assert!(e.decode(e.encode(v)).is_nan(), "{e} {bits:#x}");
            } else {
                assert_eq!(e.encode(v), bits, "{e} {bits:#x} = {v}");
            }
        }
    }
}

#[test]
fn rounds_to_nearest_even_between_every_pair_of_neighbours() {
    for e in [Elem::F16, Elem::Bf16, Elem::E4m3fn, Elem::E5m2, Elem::E4m3fnuz, Elem::F4e2m1] {
        let max = e.encode(e.range().1);
        for bits in 0..max {
            let (a, b) = (e.decode(bits), e.decode(bits + 1));
            let mid = (a + b) / 2.0;
            assert_eq!(e.encode(mid), bits + (bits & 1), "{e} tie after {bits:#x}");
            assert_eq!(e.encode(mid.next_down()), bits);
            assert_eq!(e.encode(mid.next_up()), bits + 1);
        }
    }
}

#[test]
fn overflow_follows_each_format() {
    assert_eq!(Elem::F16.decode(Elem::F16.encode(65519.9)), 65504.0);
    assert_eq!(Elem::F16.decode(Elem::F16.encode(65520.0)), f64::INFINITY);
    assert_eq!(Elem::E4m3fn.decode(Elem::E4m3fn.encode(464.0)), 448.0);
    assert!(Elem::E4m3fn.decode(Elem::E4m3fn.encode(465.0)).is_nan());
    assert_eq!(Elem::E5m2.decode(Elem::E5m2.encode(1e9)), f64::INFINITY);
    assert_eq!(Elem::F4e2m1.decode(Elem::F4e2m1.encode(-100.0)), -6.0);
}

#[test]
fn integers_wrap_and_floats_saturate_into_them() {
    assert_eq!(Elem::I8.encode(300.0), 127);
    assert_eq!(Elem::I8.encode(f64::NAN), 0);
    assert_eq!(Elem::I8.decode_int(Elem::I8.encode_int(200)), -56);
    assert_eq!(Elem::I4.decode(0xF), -1.0);
    assert_eq!(Elem::U64.decode_int(u64::MAX), u64::MAX as i128);
}

#[test]
fn sub_byte_elements_pack_low_bits_first() {
    let mut b = [0u8; 2];
    Elem::I4.store(&mut b, 0, 0x1);
    Elem::I4.store(&mut b, 1, 0xF);
    Elem::I4.store(&mut b, 2, 0x7);
    assert_eq!(b, [0xF1, 0x07]);
    assert_eq!(Elem::I4.load(&b, 1), Some(0xF));
    assert_eq!(Elem::I4.load(&b, 4), None);
}

#[test]
fn numbers_as_text_and_back() {
    let f32s = [
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (1e-5, "1e-05"),
        (1.5e-4, "0.00015"),
        (123456792.0, "123456790.0"),
        (1e16, "1e+16"),
        (f32::MAX, "3.4028235e+38"),
        (f32::NEG_INFINITY, "-inf"),
    ];
    for (v, s) in f32s {
        let bits = v.to_bits() as u64;
        assert_eq!(text::format(Elem::F32, bits).as_deref(), Some(s));
        assert_eq!(text::parse(Elem::F32, s), Some(bits));
    }
    for bits in (0..1u64 << 16).filter(|b| !Elem::F16.decode(*b).is_nan()) {
        let s = text::format(Elem::F16, bits).unwrap();
        assert_eq!(text::parse(Elem::F16, &s), Some(bits), "{s}");
    }
    assert_eq!(text::format(Elem::I8, 0xFF).as_deref(), Some("-1"));
    assert_eq!(text::format(Elem::Bool, 1).as_deref(), Some("True"));
    assert_eq!(text::format(Elem::Bf16, 1), None);
    assert_eq!(text::parse(Elem::U8, "256"), None);
    assert_eq!(text::parse(Elem::I64, "1.0"), None);
    assert_eq!(text::parse(Elem::F64, "+INF"), Some(f64::INFINITY.to_bits()));
}

#[test]
fn splits_like_python() {
    let all = usize::MAX;
    assert_eq!(text::split(" a  b c ", None, 1), ["a", "b c "]);
    assert_eq!(text::split(" a b ", Some(""), all), ["a", "b"]);
    assert_eq!(text::split("  ", None, all), [""; 0]);
    assert_eq!(text::split("", Some(","), all), [""]);
    assert_eq!(text::split("a,,b", Some(","), all), ["a", "", "b"]);
    assert_eq!(text::split("a,b,c", Some(","), 1), ["a", "b,c"]);
    assert_eq!(text::split(" a b", None, 0), ["a b"]);
}

#[test]
fn strings_are_interned_once_and_bounded() {
    let mut t = Strings::new();
    assert_eq!((t.intern(""), t.intern("ä"), t.intern("ä")), (Some(0), Some(1), Some(1)));
    t.set_limit(t.bytes() + 70);
    assert_eq!(t.intern("longer than six"), None);
    assert_eq!(t.intern("six"), Some(2));
    assert_eq!((t.len(), t.get(3), t.find("seven")), (3, None, None));
}
