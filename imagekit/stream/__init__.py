"""Disks as streams: decoders that need one pass, and the sparse writer that they fill."""

from imagekit.stream.base import ByteStream, DecodedDisk, DecodeLimits, DiskWriter, RandomReader
from imagekit.stream.decode import STREAMED_FORMATS, decode_random, decode_stream
from imagekit.stream.file_reader import FileReader
from imagekit.stream.file_writer import FileWriter
from imagekit.stream.pending import LateTablesError

__all__ = [
    "STREAMED_FORMATS",
    "ByteStream",
    "DecodeLimits",
    "DecodedDisk",
    "DiskWriter",
    "FileReader",
    "FileWriter",
    "LateTablesError",
    "RandomReader",
    "decode_random",
    "decode_stream",
]
