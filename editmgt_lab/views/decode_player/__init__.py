from .decode_player import DecodePlayer, decode_player

__all__ = ["DecodePlayer", "decode_player"]
