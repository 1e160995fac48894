//! Code for an elementwise op, on one element or four: it fuses with its neighbours as ours do.

// begin lower_hard_swish
use silure_cpu::codegen::ScalarLowering;
use silure_cpu::codegen::ir::InstBuilder;
use silure_cpu::codegen::ir::condcodes::FloatCC;

/// Two comparisons keep NaN: they are false for it.
pub static HARD_SWISH: ScalarLowering = ScalarLowering::lanes("tutorial.hard_swish", |e, x| {
    let [zero, three, six, sixth] = [0.0, 3.0, 6.0, 1.0 / 6.0].map(|v| e.float(v));
    let sum = e.b.ins().fadd(x[0], three);
    let low = e.fcmp(FloatCC::LessThan, sum, zero);
    let sum = e.select(low, zero, sum);
    let high = e.fcmp(FloatCC::LessThan, six, sum);
    let sum = e.select(high, six, sum);
    let product = e.b.ins().fmul(x[0], sum);
    Ok(e.b.ins().fmul(product, sixth))
});
// end lower_hard_swish
