"""ONNX Runtime runs the nets. This module opens every session, so that all sessions have the same settings."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.base.errors import InputError

if TYPE_CHECKING:
    import onnxruntime

# ONNX Runtime's execution providers by the names of the setting `providers`, and the package that brings each.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime for macOS"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
}
CPU = ("cpu",)
OPTIONS = {
    # Float32 stays float32, as on the CPU. Faces are looked for at many sizes, and each would be tuned for at length.
    "cuda": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
}


def installed_providers() -> list[str]:
    """The names, of PROVIDERS, that the installed ONNX Runtime was built with."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name, (provider, _) in PROVIDERS.items() if provider in available]


def check_providers(providers: str | Sequence[str]) -> tuple[str, ...]:
    """Names of providers, the preferred one first, as a tuple; a lone name is one.

    Raises InputError for one that is not known or not installed, naming those that are.
    """
    names = (providers,) if isinstance(providers, str) else tuple(providers)
    unknown = next((name for name in names if name not in PROVIDERS), None)
    if unknown is not None or not names:
        raise InputError(f"providers: {unknown or 'none'} where some of {', '.join(PROVIDERS)} were expected")
    if names != CPU:
        installed = installed_providers()
        for name in names:
            if name not in installed:
                raise InputError(
                    f"providers: {name} is not in the installed ONNX Runtime, which has {', '.join(installed)}; "
                    f"put {PROVIDERS[name][1]} in its place, or name another"
                )
    return names


def open_session(
    model: bytes,
    name: str,
    *,
    providers: Sequence[str] = CPU,
    threads: int = 1,
    error: type[InputError] = InputError,
    **options: Any,
) -> "onnxruntime.InferenceSession":
    """Open an ONNX model by its file's bytes.

    Args:
        model: the bytes.
        name: what errors call it.
        providers: those that run it (PROVIDERS), the preferred one first. The CPU runs what none of them can.
        threads: CPU threads that one call uses; 0 for all.
        error: the class of what is raised where the bytes are no model.
        options: further attributes of SessionOptions.

    Raises:
        InputError: the bytes are no model that ONNX Runtime reads, or a provider is not there or does not start.
    """
    import onnxruntime

    wanted = check_providers(providers)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3  # errors only
    # Threads that wait must not keep a core busy: other sessions, and the caller's own threads, need it.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in options.items():
        setattr(settings, key, value)
    if "directml" in wanted:
        settings.enable_mem_pattern = False  # which DirectML cannot use
    try:
        session = onnxruntime.InferenceSession(
            model, settings, providers=[(PROVIDERS[each][0], OPTIONS.get(each, {})) for each in wanted]
        )
    except Exception as reason:  # onnxruntime's errors have no common class of their own
        why = " ".join(str(reason).split())
        raise error(f"{name}: not a model that ONNX Runtime reads ({why})") from None
    for each in wanted:  # ONNX Runtime does without one whose libraries or device it does not find
        if PROVIDERS[each][0] not in session.get_providers():
            raise InputError(
                f"providers: {each} does not start on this machine; install its driver and libraries, or name one of "
                f"{', '.join(installed_providers())}"
            )
    return session
