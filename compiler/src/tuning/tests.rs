//! Tuning files: both ways, and wrong in every way.

use super::*;

const GOOD: &str = r#"version = 1
model = "sha256:00"
target = "cpu:x86-64-v3"
level = "AVX-512"
machine = "a machine"
threads = 2

[[choice]]
problem = "matmul.f32.packed batch=1x1x1x1x1x1 m=128 n=768 k=3072 a_col=1 b_col=0"
rows = 96
depth = 512
gain = [1.041, 1.062, 1.085]

[[choice]]
problem = "attention.f32 batch=1 heads=12 kv_heads=12 queries=128 keys=128 depth=64 value_depth=64 causal=0"
cols = 128
gain = [1.010, 1.020, 1.030]
"#;

fn fails(text: &str) -> String {
    Tuning::parse("f.tuning", text).unwrap_err().to_string()
}

#[test]
fn text_goes_both_ways() {
    let t = Tuning::parse("f.tuning", GOOD).unwrap();
    assert_eq!(t.choices.len(), 2);
    assert_eq!(t.choices[0].choice.schedule.numbers(), [96, 0, 512, 0]);
    let text = t.text();
    let again = Tuning::parse("g.tuning", &text).unwrap();
    // In the order of the problems' text, whatever it was before.
    assert!(text.find("attention").unwrap() < text.find("matmul").unwrap());
    assert_eq!(again.text(), text);
    assert_eq!(again.choices[1], t.choices[0]);
    assert_ne!(again.hash, t.hash);
    let odd = Tuning { machine: "a \"b\"\n\u{7} ".repeat(900), ..t };
    Tuning::parse("h.tuning", &odd.text()).unwrap();
}

#[test]
fn errors_name_line_key_needed_and_present() {
    for (from, to, message) in [
        ("version = 1", "version = 2", "f.tuning:1: `version`: needed 1, present 2"),
        ("version = 1", "version = \"1\"", "f.tuning:1: `version`: needed 1, present \"1\""),
        ("version = 1\n", "", "f.tuning:1: needed the key `version`, present: nothing"),
        (
            "threads = 2",
            "threads = 0",
            "f.tuning:6: `threads`: needed a whole number from 1 to 1024, present 0",
        ),
        (
            "threads = 2",
            "threads = 99999999999999999999999",
            "f.tuning:6: `threads`: needed a whole",
        ),
        ("threads = 2", "threads = 2\nsurprise = 1", "f.tuning:7: needed one of the keys"),
        (
            "\"a machine\"",
            "7",
            "f.tuning:5: `machine`: needed one line of at most 256 bytes, present 7",
        ),
        (
            "rows = 96",
            "rows = 97",
            "f.tuning:10: choice 1: `rows`: needed 0 or a multiple of 24 from 48 to 1536, present 97",
        ),
        (
            "rows = 96",
            "rows = -96",
            "f.tuning:10: choice 1: `rows`: needed a whole number that is not negative, present -96",
        ),
        ("rows = 96", "rows = 96.0", "f.tuning:10: choice 1: `rows`: needed a whole number"),
        (
            "rows = 96",
            "rows = 9223372036854775807",
            "f.tuning:10: choice 1: `rows`: needed 0 or a multiple",
        ),
        ("rows = 96", "row = 96", "f.tuning:10: choice 1: needed one of the keys `problem`"),
        (
            "depth = 512",
            "depth = 4096",
            "f.tuning:11: choice 1: `depth`: needed 0 or a multiple of 16 from 64 to 2048",
        ),
        (
            "cols = 128",
            "depth = 64",
            "choice 2: `depth`: needed nothing: this kernel has no such number, present 64 (kernel attention.f32)",
        ),
        ("m=128", "m=0128", "f.tuning:9: choice 1: `problem`: needed the spelling"),
        (
            "matmul.f32.packed ",
            "matmul.f33 ",
            "f.tuning:9: choice 1: `problem`: needed a kernel, one of",
        ),
        (
            "gain = [1.041, 1.062, 1.085]",
            "gain = [1.2, 1.1, 1.3]",
            "f.tuning:12: choice 1: `gain`: needed three floats",
        ),
        (
            "gain = [1.041, 1.062, 1.085]",
            "gain = [nan, nan, nan]",
            "f.tuning:12: choice 1: `gain`: needed three floats",
        ),
        ("gain = [1.041, 1.062, 1.085]\n", "", "f.tuning:8: choice 1: needed the key `gain`"),
        ("[[choice]]\nproblem = \"att", "choices = [[[[\nproblem = \"att", "f.tuning:15: "),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let e = fails(&GOOD.replacen(from, to, 1));
        assert!(e.contains(message), "{from} → {to}: {e}");
    }
    let twice = GOOD.replace(
        "attention.f32 batch=1 heads=12 kv_heads=12 queries=128 keys=128 depth=64 value_depth=64 causal=0",
        "matmul.f32.packed batch=1x1x1x1x1x1 m=128 n=768 k=3072 a_col=1 b_col=0",
    );
    let e = fails(&twice.replace("cols = 128", "cols = 96"));
    assert!(e.contains("f.tuning:14: choice 2: `problem`: needed one choice for each"), "{e}");
}

/// Whatever the bytes, there is an answer, and soon; whatever is accepted is what kernels run.
#[test]
fn hostile_files_are_bounded() {
    assert!(fails(&" ".repeat(2 << 20)).contains("needed at most 1048576 bytes"));
    assert!(fails(&format!("version = 1\nx = {}", "[".repeat(1 << 19))).contains("f.tuning:2"));
    let head = GOOD.split("\n[[").next().unwrap();
    let many = format!("{head}\n{}", "[[choice]]\n".repeat(5000));
    assert!(fails(&many).contains("needed at most 4096 tables [[choice]]"));
    assert!(fails(&format!("{head}\nchoice = 3")).contains("needed at most 4096"));
    assert!(fails(&format!("{head}\nchoice = [3]")).contains("needed a table, present 3"));
    let mut seed = 5u64;
    for _ in 0..3000 {
        let mut bytes = GOOD.as_bytes().to_vec();
        for _ in 0..3 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (seed >> 33) as usize % bytes.len();
            match seed >> 60 {
                0..4 => drop(bytes.remove(at)),
                4..8 => bytes.insert(at, (seed >> 25) as u8 & 127),
                _ => bytes[at] = b"0123456789-x\"]=\n"[(seed >> 20) as usize & 15],
            }
        }
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if let Ok(t) = Tuning::parse("f", &text) {
            for c in t.choices() {
                assert_eq!(c.problem.refusal(&c.schedule), None);
            }
        }
    }
}
