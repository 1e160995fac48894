//! What a schedule is chosen for, and its text.

use std::fmt;

use silure_ir::Dim;
use silure_kernels_cpu::conv::Window;
use silure_kernels_cpu::schedule::{Schedule, fields, kernels, knobs};

/// Most bytes of a problem's text.
const MOST_TEXT: usize = 1024;

/// Sizes that decide how fast a kernel is, by the beginning of its name; Conv and ConvI8 begin with their window.
static KEYS: &[(&str, &[&str])] = &[
    (
        "conv.",
        &[
            "batch",
            "groups",
            "in_channels",
            "out_channels",
            "x",
            "y",
            "kernel",
            "stride",
            "dilation",
            "pad",
        ],
    ),
    (
        "attention.",
        &["batch", "heads", "kv_heads", "queries", "keys", "depth", "value_depth", "causal"],
    ),
    ("matmul.", &["batch", "m", "n", "k", "a_col", "b_col", "block"]),
];

/// A size of a key: its name, first slot and slots.
type Key = (&'static str, usize, usize);

/// The sizes of a kernel's key.
fn keys(kernel: &str) -> Option<Vec<Key>> {
    let own = fields(kernel)?;
    let all = if kernel.starts_with("conv.") { Window::FIELDS } else { own };
    let names = KEYS.iter().find(|k| kernel.starts_with(k.0))?.1;
    let mut at = 0;
    let mut out = vec![];
    for (name, count) in all {
        if names.contains(name) {
            out.push((*name, at, *count));
        }
        at += count;
    }
    Some(out)
}

/// A kernel with the sizes that decide how fast it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    kernel: &'static str,
    values: Vec<i64>,
}

/// Whether the sizes of a launch are those of a problem.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Match {
    /// They differ.
    Never,
    /// Where these dims have these values, always if there are none.
    Where(Vec<(Dim, i64)>),
}

/// Compares the sizes of a launch of the problem's kernel.
pub(super) fn same(p: &Problem, sizes: &[Dim]) -> Match {
    let mut conditions: Vec<(Dim, i64)> = vec![];
    for (slot, v) in slots(p.kernel).zip(&p.values) {
        match sizes.get(slot) {
            None => return Match::Never,
            Some(Dim::Const(d)) if d == v => {}
            Some(Dim::Const(_)) => return Match::Never,
            Some(d) => match conditions.iter().find(|c| c.0 == *d) {
                Some(c) if c.1 != *v => return Match::Never,
                Some(_) => {}
                None => conditions.push((d.clone(), *v)),
            },
        }
    }
    Match::Where(conditions)
}

fn slots(kernel: &str) -> impl Iterator<Item = usize> + use<> {
    keys(kernel).unwrap_or_default().into_iter().flat_map(|(_, at, n)| at..at + n)
}

impl Problem {
    /// The problem of a launch of a kernel that has a schedule; `at` gives the values of symbols. `None` if a size stays
    /// unknown.
    pub fn of(
        kernel: &'static str,
        sizes: &[Dim],
        at: &dyn Fn(&str) -> Option<i64>,
    ) -> Option<Problem> {
        keys(kernel)?;
        let values = slots(kernel).map(|i| sizes.get(i)?.eval(at)).collect::<Option<_>>()?;
        Some(Problem { kernel, values })
    }

    /// Reads a problem's text, which has one spelling. The error says what was needed.
    pub fn parse(text: &str) -> Result<Problem, String> {
        if text.len() > MOST_TEXT {
            return Err(format!("needed at most {MOST_TEXT} bytes, present {}", text.len()));
        }
        let mut words = text.split(' ');
        let first = words.next().unwrap_or_default();
        let Some(kernel) = kernels().find(|k| *k == first) else {
            let all: Vec<_> = kernels().collect();
            return Err(format!("needed a kernel, one of {}; present `{first}`", all.join(", ")));
        };
        let mut values = vec![];
        for (name, _, count) in keys(kernel).unwrap_or_default() {
            let word = words.next().unwrap_or_default();
            let given = word.strip_prefix(name).and_then(|w| w.strip_prefix('='));
            let read: Option<Vec<i64>> =
                given.and_then(|g| g.split('x').map(|v| v.parse().ok()).collect());
            match read.filter(|v| v.len() == count) {
                Some(v) => values.extend(v),
                None => {
                    let form = vec!["N"; count].join("x");
                    return Err(format!("needed `{name}={form}`, present `{word}`"));
                }
            }
        }
        if let Some(word) = words.next() {
            return Err(format!("needed nothing more, present `{word}`"));
        }
        let p = Problem { kernel, values };
        match p.to_string() {
            own if own == text => Ok(p),
            own => Err(format!("needed the spelling `{own}`, present `{text}`")),
        }
    }

    /// The kernel's name.
    pub fn kernel(&self) -> &'static str {
        self.kernel
    }

    /// A size, all its slots; nothing if the key has no such size.
    pub fn size(&self, name: &str) -> &[i64] {
        let mut at = 0;
        for (key, _, count) in keys(self.kernel).unwrap_or_default() {
            if key == name {
                return self.values.get(at..at + count).unwrap_or_default();
            }
            at += count;
        }
        &[]
    }

    /// Rows, columns and depth of the product that this is; queries, keys and depth of an attention.
    pub fn extents(&self) -> [usize; 3] {
        let one = |name: &str| {
            let sizes = self.size(name).iter();
            sizes.fold(1usize, |n, v| n.saturating_mul(usize::try_from(*v).unwrap_or(0)))
        };
        match self.kernel {
            k if k.starts_with("attention.") => [one("queries"), one("keys"), one("depth")],
            "conv.f32.last.depthwise" => {
                let lines: i64 = self.size("y").iter().take(2).product();
                [one("batch").saturating_mul(lines.max(0) as usize), one("groups"), one("kernel")]
            }
            k if k.starts_with("conv.") => {
                let depth = one("kernel").saturating_mul(one("in_channels"));
                match k.ends_with(".last") {
                    true => [one("batch").saturating_mul(one("y")), one("out_channels"), depth],
                    false => [one("out_channels"), one("y"), depth],
                }
            }
            _ => [one("m"), one("n"), one("k")],
        }
    }

    /// Whether the results under a schedule have the bits of those under the kernel's own.
    pub fn same_bits(&self, s: &Schedule) -> bool {
        knobs(self.kernel).is_some_and(|k| k.same_bits(s))
    }

    /// Why the kernel does not run the schedule; `None` if it does.
    pub fn refusal(&self, s: &Schedule) -> Option<String> {
        let knobs = knobs(self.kernel)?.all();
        let mut bad = knobs.iter().zip(s.numbers()).zip(Schedule::NAMES);
        bad.find(|((k, v), _)| !k.allows(*v))
            .map(|((k, v), name)| format!("`{name}`: needed {k}, present {v}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kernel)?;
        let mut at = 0;
        for (name, _, count) in keys(self.kernel).unwrap_or_default() {
            let values: Vec<String> =
                self.values[at..at + count].iter().map(i64::to_string).collect();
            write!(f, " {name}={}", values.join("x"))?;
            at += count;
        }
        Ok(())
    }
}
