"""Prints the records that tests.rs expects, as the Python package writes them: pip install tensorboard==2.21.0."""

import io
from importlib.metadata import version

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

Event, Value = event_pb2.Event, summary_pb2.Summary.Value


def record(**fields):
    file = io.BytesIO()
    RecordWriter(file).write(Event(**fields).SerializeToString(deterministic=True))
    print(file.getvalue().hex())


print({package: version(package) for package in ("tensorboard", "protobuf")})
early, late = 1_700_000_000.25, 1_700_000_001.5
record(wall_time=early, file_version="brain.Event:2")
record(wall_time=early, step=13, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
points = [Value(tag="loss", simple_value=-1.25), Value(tag="hold_out", simple_value=0.0)]
record(wall_time=late, step=300, summary=summary_pb2.Summary(value=points))
tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=["α | 1".encode()])
tensor.tensor_shape.dim.add(size=1)
metadata = summary_pb2.SummaryMetadata(data_class=summary_pb2.DATA_CLASS_TENSOR)
metadata.plugin_data.plugin_name = "text"
text = Value(tag="settings", tensor=tensor, metadata=metadata)
record(wall_time=late, summary=summary_pb2.Summary(value=[text]))
