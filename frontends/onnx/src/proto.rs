//! The file format: every message of `proto/onnx-ml.proto` with its fields, declared once.
//!
//! A message is lent: a handle of its bytes in the file, from which a field is read when it is asked for. Nothing is
//! decoded ahead, so a message costs no memory but the file's. The walk over a new file goes by the same declaration
//! (`Message::fields`), and handles are made only of what it has accepted: numbers of the declared kind, texts in
//! UTF-8, messages that stand once where one is declared.
//!
//! Invariant: the declaration is that of `proto/onnx-ml.proto` (a test of `scan.rs` compares).

use crate::wire::{Content, List, Raw, text};

/// What a field holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    Bytes,
    I64,
    I32,
    U64,
    F32,
    F64,
    Message(Message),
}

/// One field of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    pub number: u64,
    pub name: &'static str,
    /// Whether it is a list.
    pub many: bool,
    pub kind: Kind,
}

macro_rules! kind {
    (text) => {
        Kind::Text
    };
    (bytes) => {
        Kind::Bytes
    };
    (i64) => {
        Kind::I64
    };
    (i32) => {
        Kind::I32
    };
    (u64) => {
        Kind::U64
    };
    (f32) => {
        Kind::F32
    };
    (f64) => {
        Kind::F64
    };
    (message $of:ident) => {
        Kind::Message(Message::$of)
    };
}

macro_rules! many {
    (one) => {
        false
    };
    (many) => {
        true
    };
}

/// The method that reads a field. A text that is not there is empty, anything else is `None`.
macro_rules! getter {
    ($n:literal one text $name:ident) => {
        pub fn $name(self) -> &'m str {
            self.0.blocks($n).last().map_or("", text)
        }
    };
    ($n:literal one bytes $name:ident) => {
        pub fn $name(self) -> Option<&'m [u8]> {
            self.0.blocks($n).last()
        }
    };
    ($n:literal one message $name:ident $of:ident) => {
        pub fn $name(self) -> Option<$of<'m>> {
            self.0.blocks($n).last().map(|b| $of(Raw(b)))
        }
    };
    ($n:literal one $ty:ident $name:ident) => {
        pub fn $name(self) -> Option<$ty> {
            self.0.scalar($n)
        }
    };
    ($n:literal many text $name:ident) => {
        pub fn $name(self) -> impl Iterator<Item = &'m str> + Clone + use<'m> {
            self.0.blocks($n).map(text)
        }
    };
    ($n:literal many bytes $name:ident) => {
        pub fn $name(self) -> impl Iterator<Item = &'m [u8]> + Clone + use<'m> {
            self.0.blocks($n)
        }
    };
    ($n:literal many message $name:ident $of:ident) => {
        pub fn $name(self) -> impl Iterator<Item = $of<'m>> + Clone + use<'m> {
            self.0.blocks($n).map(|b| $of(Raw(b)))
        }
    };
    ($n:literal many $ty:ident $name:ident) => {
        pub fn $name(self) -> List<'m, $ty> {
            List::new(self.0, $n)
        }
    };
}

macro_rules! messages {
    ($($message:ident {
        $($number:literal $label:ident $kind:ident $name:ident $(: $of:ident)?,)*
    })*) => {
        /// The messages of the format.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Message { $($message),* }

        impl Message {
            /// All fields.
            pub fn fields(self) -> &'static [Field] {
                match self {
                    $(Message::$message => &[$(Field {
                        number: $number,
                        name: stringify!($name),
                        many: many!($label),
                        kind: kind!($kind $($of)?),
                    }),*],)*
                }
            }

            #[cfg(test)]
            pub const ALL: &[Message] = &[$(Message::$message),*];
        }

        $(
            #[doc = concat!("`", stringify!($message), "` of the format.")]
            #[derive(Clone, Copy, Debug, Default)]
            pub struct $message<'m>(Raw<'m>);

            #[allow(dead_code, missing_docs, reason = "fields as the format has them")]
            impl<'m> $message<'m> {
                /// Fields of all numbers.
                pub(crate) fn count(self) -> usize {
                    self.0.all().count()
                }

                $(getter!($number $label $kind $name $($of)?);)*
            }
        )*
    };
}

// `TypeX` is the message `X` within `TypeProto`.
messages! {
    AttributeProto {
        1 one text name,
        21 one text ref_attr_name,
        13 one text doc_string,
        20 one i32 r#type,
        2 one f32 f,
        3 one i64 i,
        4 one bytes s,
        5 one message t: TensorProto,
        6 one message g: GraphProto,
        22 one message sparse_tensor: SparseTensorProto,
        14 one message tp: TypeProto,
        7 many f32 floats,
        8 many i64 ints,
        9 many bytes strings,
        10 many message tensors: TensorProto,
        11 many message graphs: GraphProto,
        23 many message sparse_tensors: SparseTensorProto,
        15 many message type_protos: TypeProto,
    }
    ValueInfoProto {
        1 one text name,
        2 one message r#type: TypeProto,
        3 one text doc_string,
        4 many message metadata_props: StringStringEntryProto,
    }
    NodeProto {
        1 many text input,
        2 many text output,
        3 one text name,
        4 one text op_type,
        7 one text domain,
        8 one text overload,
        5 many message attribute: AttributeProto,
        6 one text doc_string,
        9 many message metadata_props: StringStringEntryProto,
        10 many message device_configurations: NodeDeviceConfigurationProto,
    }
    IntIntListEntryProto {
        1 one i64 key,
        2 many i64 value,
    }
    NodeDeviceConfigurationProto {
        1 one text configuration_id,
        2 many message sharding_spec: ShardingSpecProto,
        3 one i32 pipeline_stage,
    }
    ShardingSpecProto {
        1 one text tensor_name,
        2 many i64 device,
        3 many message index_to_device_group_map: IntIntListEntryProto,
        4 many message sharded_dim: ShardedDimProto,
    }
    ShardedDimProto {
        1 one i64 axis,
        2 many message simple_sharding: SimpleShardedDimProto,
    }
    SimpleShardedDimProto {
        1 one i64 dim_value,
        2 one text dim_param,
        3 one i64 num_shards,
    }
    TrainingInfoProto {
        1 one message initialization: GraphProto,
        2 one message algorithm: GraphProto,
        3 many message initialization_binding: StringStringEntryProto,
        4 many message update_binding: StringStringEntryProto,
    }
    ModelProto {
        1 one i64 ir_version,
        8 many message opset_import: OperatorSetIdProto,
        2 one text producer_name,
        3 one text producer_version,
        4 one text domain,
        5 one i64 model_version,
        6 one text doc_string,
        7 one message graph: GraphProto,
        14 many message metadata_props: StringStringEntryProto,
        20 many message training_info: TrainingInfoProto,
        25 many message functions: FunctionProto,
        26 many message configuration: DeviceConfigurationProto,
    }
    DeviceConfigurationProto {
        1 one text name,
        2 one i32 num_devices,
        3 many text device,
    }
    StringStringEntryProto {
        1 one text key,
        2 one text value,
    }
    TensorAnnotation {
        1 one text tensor_name,
        2 many message quant_parameter_tensor_names: StringStringEntryProto,
    }
    GraphProto {
        1 many message node: NodeProto,
        2 one text name,
        5 many message initializer: TensorProto,
        15 many message sparse_initializer: SparseTensorProto,
        10 one text doc_string,
        11 many message input: ValueInfoProto,
        12 many message output: ValueInfoProto,
        13 many message value_info: ValueInfoProto,
        14 many message quantization_annotation: TensorAnnotation,
        16 many message metadata_props: StringStringEntryProto,
    }
    TensorProto {
        1 many i64 dims,
        2 one i32 data_type,
        3 one message segment: Segment,
        4 many f32 float_data,
        5 many i32 int32_data,
        6 many bytes string_data,
        7 many i64 int64_data,
        8 one text name,
        12 one text doc_string,
        9 one bytes raw_data,
        13 many message external_data: StringStringEntryProto,
        14 one i32 data_location,
        10 many f64 double_data,
        11 many u64 uint64_data,
        16 many message metadata_props: StringStringEntryProto,
    }
    Segment {
        1 one i64 begin,
        2 one i64 end,
    }
    SparseTensorProto {
        1 one message values: TensorProto,
        2 one message indices: TensorProto,
        3 many i64 dims,
    }
    TensorShapeProto {
        1 many message dim: Dimension,
    }
    Dimension {
        1 one i64 dim_value,
        2 one text dim_param,
        3 one text denotation,
    }
    TypeProto {
        1 one message tensor_type: TypeTensor,
        4 one message sequence_type: TypeSequence,
        5 one message map_type: TypeMap,
        9 one message optional_type: TypeOptional,
        8 one message sparse_tensor_type: TypeSparseTensor,
        7 one message opaque_type: TypeOpaque,
        6 one text denotation,
    }
    TypeTensor {
        1 one i32 elem_type,
        2 one message shape: TensorShapeProto,
    }
    TypeSequence {
        1 one message elem_type: TypeProto,
    }
    TypeMap {
        1 one i32 key_type,
        2 one message value_type: TypeProto,
    }
    TypeOptional {
        1 one message elem_type: TypeProto,
    }
    TypeSparseTensor {
        1 one i32 elem_type,
        2 one message shape: TensorShapeProto,
    }
    TypeOpaque {
        1 one text domain,
        2 one text name,
    }
    OperatorSetIdProto {
        1 one text domain,
        2 one i64 version,
    }
    FunctionProto {
        1 one text name,
        4 many text input,
        5 many text output,
        6 many text attribute,
        11 many message attribute_proto: AttributeProto,
        7 many message node: NodeProto,
        8 one text doc_string,
        9 many message opset_import: OperatorSetIdProto,
        10 one text domain,
        13 one text overload,
        12 many message value_info: ValueInfoProto,
        14 many message metadata_props: StringStringEntryProto,
    }
}

impl<'m> ModelProto<'m> {
    /// The model in the bytes of an accepted file.
    pub(crate) fn new(file: &'m [u8]) -> ModelProto<'m> {
        ModelProto(Raw(file))
    }
}

/// What tells messages of the same files apart.
pub(crate) trait Identity {
    /// Where its bytes begin.
    fn identity(self) -> *const u8;
}

macro_rules! identities {
    ($($message:ident)*) => {
        $(impl Identity for $message<'_> {
            fn identity(self) -> *const u8 {
                self.0.0.as_ptr()
            }
        })*
    };
}

identities! { TensorProto SparseTensorProto FunctionProto }

/// What a type is, of [`TypeProto`]: what is written last.
#[derive(Clone, Copy, Debug)]
pub enum TypeValue<'m> {
    /// A tensor.
    Tensor(TypeTensor<'m>),
    /// A sequence.
    Sequence(TypeSequence<'m>),
    /// A map.
    Map(TypeMap<'m>),
    /// An optional.
    Optional(TypeOptional<'m>),
    /// A sparse tensor.
    Sparse(TypeSparseTensor<'m>),
    /// A type of somebody else.
    Opaque(TypeOpaque<'m>),
}

impl<'m> TypeProto<'m> {
    /// What it is.
    pub fn value(self) -> Option<TypeValue<'m>> {
        let one = |(number, content)| {
            let Content::Bytes(b) = content else { return None };
            Some(match number {
                1 => TypeValue::Tensor(TypeTensor(Raw(b))),
                4 => TypeValue::Sequence(TypeSequence(Raw(b))),
                5 => TypeValue::Map(TypeMap(Raw(b))),
                7 => TypeValue::Opaque(TypeOpaque(Raw(b))),
                8 => TypeValue::Sparse(TypeSparseTensor(Raw(b))),
                9 => TypeValue::Optional(TypeOptional(Raw(b))),
                _ => return None,
            })
        };
        self.0.all().filter_map(one).last()
    }
}

/// A size, of [`Dimension`]: what is written last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DimValue<'m> {
    /// A number.
    Number(i64),
    /// A name.
    Name(&'m str),
}

impl<'m> Dimension<'m> {
    /// The size.
    pub fn value(self) -> Option<DimValue<'m>> {
        let one = |field| match field {
            (1, Content::Varint(v)) => Some(DimValue::Number(v as i64)),
            (2, Content::Bytes(b)) => Some(DimValue::Name(text(b))),
            _ => None,
        };
        self.0.all().filter_map(one).last()
    }
}

/// Names of `AttributeProto.AttributeType`, by number.
pub(crate) const ATTRIBUTE_TYPES: &[&str] = &[
    "UNDEFINED",
    "FLOAT",
    "INT",
    "STRING",
    "TENSOR",
    "GRAPH",
    "FLOATS",
    "INTS",
    "STRINGS",
    "TENSORS",
    "GRAPHS",
    "SPARSE_TENSOR",
    "SPARSE_TENSORS",
    "TYPE_PROTO",
    "TYPE_PROTOS",
];

/// Names of `TensorProto.DataType`, by number.
pub(crate) const DATA_TYPES: &[&str] = &[
    "UNDEFINED",
    "FLOAT",
    "UINT8",
    "INT8",
    "UINT16",
    "INT16",
    "INT32",
    "INT64",
    "STRING",
    "BOOL",
    "FLOAT16",
    "DOUBLE",
    "UINT32",
    "UINT64",
    "COMPLEX64",
    "COMPLEX128",
    "BFLOAT16",
    "FLOAT8E4M3FN",
    "FLOAT8E4M3FNUZ",
    "FLOAT8E5M2",
    "FLOAT8E5M2FNUZ",
    "UINT4",
    "INT4",
    "FLOAT4E2M1",
    "FLOAT8E8M0",
    "UINT2",
    "INT2",
    "FLOAT6E2M3",
    "FLOAT6E3M2",
];
