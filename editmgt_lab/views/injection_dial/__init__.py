from .injection_dial import InjectionDial, injection_dial

__all__ = ["InjectionDial", "injection_dial"]
