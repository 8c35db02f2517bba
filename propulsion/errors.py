"""The errors this project raises on purpose; each message says what, where and what to do."""


class PropulsionError(Exception):
    """Base of every error a user can cause; the command line prints it without a traceback."""


class ConfigError(PropulsionError):
    """A run file, option or adapter configuration is wrong."""


class HeadNotServedError(ConfigError):
    """The running engine cannot use an adapter's head, or lacks one; the message is for clients."""


class DataError(PropulsionError):
    """A data file is missing or holds a malformed record; the message names file and line."""


class AdapterNotFoundError(PropulsionError):
    """No adapter, version or alias of that name is in the store."""


class StoreUnavailableError(PropulsionError):
    """The adapter store cannot be reached or read now; the same request may succeed later."""


class AdapterCorruptError(PropulsionError):
    """An adapter's files are missing, truncated or do not match their checksums."""


class BaseMismatchError(PropulsionError):
    """An adapter was trained for another base model, or does not fit this one's shapes."""
