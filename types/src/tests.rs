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
