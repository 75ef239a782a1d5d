//! What must hold of torch files whatever is in them.

#![allow(clippy::unwrap_used)] // a test may stop

use flawtune_backbone::torch_file::{self, Problem, Tensor, Value};
use proptest::prelude::*;

/// Magic number, version and system of the old format; objects follow.
const START: &[u8] =
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";

/// Values that checkpoints are made of, three levels deep.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e300..1e300).prop_map(Value::Float),
        "\\PC{0,12}".prop_map(Value::Str),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
        (1usize..4, 1usize..4).prop_map(|(rows, columns)| {
            let numbers: Vec<f32> = (0..rows * columns).map(|i| i as f32 - 1.5).collect();
            Value::Tensor(Tensor::from_f32(vec![rows, columns], &numbers))
        }),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Tuple),
            proptest::collection::btree_map("[a-z_]{1,8}", inner, 0..5).prop_map(Value::dict),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(value in values()) {
        let bytes = torch_file::to_bytes(&value).unwrap();
        prop_assert_eq!(torch_file::read_bytes(&bytes).unwrap(), value);
    }

    /// As the fuzz target has it: data, or an error, and never more.
    #[test]
    fn any_objects_are_data_or_an_error(
        objects in proptest::collection::vec(
            prop_oneof![
                any::<u8>(),
                proptest::sample::select(b"()]}NIKMXqh.tusR0elGJac\x80\x85\x86\x87\x88".to_vec()),
            ],
            0..200,
        ),
    ) {
        let read = torch_file::read_bytes(&[START, &objects].concat());
        if let Ok(value) = read {
            // shared objects may grow too large to be written one by one
            let again = torch_file::to_bytes(&value);
            prop_assert!(matches!(again, Ok(_) | Err(Problem::TooLarge(_))));
        }
    }

    #[test]
    fn a_shortened_file_is_an_error(value in values(), share in 0.0f64..1.0) {
        let bytes = torch_file::to_bytes(&value).unwrap();
        let cut = (bytes.len() as f64 * share) as usize;
        prop_assert!(torch_file::read_bytes(&bytes[..cut]).is_err());
    }
}
