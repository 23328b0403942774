"""The enums of layer parameters: `from pipeline.caffe import params as P`, then P.Pooling.MAX or P.Loss.VALID."""

from pipeline.caffe.proto import caffe_pb2


def __getattr__(name: str) -> object:
    message = getattr(caffe_pb2, f"{name}Parameter", None)
    if message is None:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}': Caffe has no {name}Parameter")
    return message


def __dir__() -> list[str]:
    return sorted(
        name.removesuffix("Parameter")
        for name, message in vars(caffe_pb2).items()
        if name.endswith("Parameter") and message.DESCRIPTOR.enum_types
    )
