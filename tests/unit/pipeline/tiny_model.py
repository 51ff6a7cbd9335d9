"""Writes GGUF files that hold a header and one tensor: enough to be looked at, too little to be loaded."""

from pathlib import Path

import gguf
import numpy as np


def write_model(path: Path, *, architecture: str = "llama", template: bool = True, parts: int = 1) -> Path:
    """A small GGUF of Q8_0 weights, or the first of several parts of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    if template:
        writer.add_chat_template("{{ messages }}")
    if parts > 1:
        writer.add_uint16("split.no", 0)
        writer.add_uint16("split.count", parts)
    weights = gguf.quantize(np.ones((256, 32), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("token_embd.weight", weights, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
