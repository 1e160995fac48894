//! The phases of a compilation.

/// A point on the way of a model; the module can be printed behind each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// As imported.
    Import,
    /// Optimised graph ops.
    Graph,
    /// Fused into kernel ops.
    Kernel,
    /// Lowered to launches.
    Plan,
}

impl Phase {
    /// Every phase in order.
    pub const ALL: [Phase; 4] = [Phase::Import, Phase::Graph, Phase::Kernel, Phase::Plan];

    /// The name in options.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Import => "import",
            Phase::Graph => "graph",
            Phase::Kernel => "kernel",
            Phase::Plan => "plan",
        }
    }

    /// The phase of that name.
    pub fn parse(name: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|p| p.name() == name)
    }

    /// The passes that lead to it from the phase before, for a family of targets (the kernel phase begins
    /// with the target's decompositions); the last phase is the backend's lowering.
    pub fn pipeline(self, family: &str) -> &'static str {
        match self {
            Phase::Import | Phase::Plan => "",
            Phase::Kernel if family == "cuda" => {
                "expand,canonicalize,fold,weights,canonicalize,fold,epilogues,cse,fuse,cse,dce"
            }
            Phase::Graph => {
                "canonicalize,quantised,shapes,fold,canonicalize,shapes,quantised,fold,recognize,cse,dce"
            }
            Phase::Kernel => {
                "expand,canonicalize,fold,weights,channels-last,canonicalize,fold,epilogues,cse,fuse,cse,dce"
            }
        }
    }
}
