//! Maps: `ZipMap`. The keys of every map are the same and known, so that maps are rows of values in the
//! order of the keys; the user is told.

use silure_ir::ValueId;

use super::{Cx, Node, Record, ml};
use crate::error::{Result, quote};

pub(super) const TABLE: &[Record] = &[ml("ZipMap", 1, zip_map)];

/// Keys that a note lists at most.
const LISTED: usize = 16;

fn zip_map(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let labels = cx.labels(n, "classlabels_int64s", "classlabels_strings")?;
    let mut x = cx.matrix(n, 0)?;
    cx.expect_size(&mut x, 1, &labels.len().into(), "the number of values and of keys")?;
    let mut keys: Vec<String> = match labels.elem().is_str() {
        true => labels.strs().map_err(|d| cx.diag(d))?.iter().map(|s| quote(s)).collect(),
        false => labels.to_i64s().iter().map(i64::to_string).collect(),
    };
    if keys.len() > LISTED {
        keys.truncate(LISTED);
        keys.push(format!("… ({} in all)", labels.len()));
    }
    let keys = keys.join(", ");
    let note = format!("{}: maps are rows of values, in the order of the keys {keys}", cx.at);
    cx.note(note);
    Ok(vec![x])
}
