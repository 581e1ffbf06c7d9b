"""The error tree. Every error says where, what was found, and what would fit.

    FlexRewardError
    ├── UserError           the user can mend it: one line, exit 2 (also a ValueError)
    │   ├── SampleError     a row of the input: names file, line and field
    │   │   └── MediaError  an image, sound or film: too large, broken, or not what it should be
    │   ├── RecipeError     a recipe or a flag: names file and field
    │   ├── OutputError     the output file belongs to another run, or cannot be written
    │   └── JudgeError      the judge cannot be found or loaded
    │       └── WeightsError  its weights are not those that were named, or cannot be exchanged
    ├── LaterError          a server cannot take the request now: try again after ``retry_after_s``
    │   ├── BusyError       it could not be answered in time
    │   └── AsleepError     the judge sleeps
    └── EngineError         one request could not be answered; ``Judge`` turns it into ``Unscored(error.reason)``
        ├── ContextError    the prompt does not fit into the model
        ├── RefusedError    the engine does not take this request (a capability is missing)
        └── DeadlineError   the answer did not come in time

``status`` is the HTTP status a server answers with. No class has an ``__init__`` of its own: errors cross process
borders and must pickle.
"""

from flexreward.types import Reason


class FlexRewardError(Exception):
    """Base of everything this library raises on purpose."""

    status = 500


class UserError(FlexRewardError, ValueError):
    """Something the user can mend; the message is one line that says how."""

    status = 400


class SampleError(UserError):
    """A row of the samples cannot be used."""


class MediaError(SampleError):
    """A medium cannot be taken or decoded; the message names it and the limit that it met."""

    status = 422


class RecipeError(UserError):
    """A recipe field or a flag is wrong."""


class OutputError(UserError):
    """The output belongs to another run or cannot be written."""


class JudgeError(UserError):
    """The judge that was named cannot be found or loaded."""


class WeightsError(JudgeError):
    """The weights are not those that were named, or cannot be exchanged."""

    status = 409


class LaterError(FlexRewardError):
    """The request is fine, and the time is not."""

    status = 503
    retry_after_s = 1.0
    """Seconds after which it may be asked again; an instance may set its own."""


class BusyError(LaterError):
    """More is waiting than can be answered in time."""

    status = 429


class AsleepError(LaterError):
    """The judge has given its memory to others."""


class EngineError(FlexRewardError):
    """The engine could not answer this request."""

    status = 503
    reason = Reason.ENGINE


class ContextError(EngineError):
    """The prompt is longer than the model can read."""

    status = 413
    reason = Reason.CONTEXT


class RefusedError(EngineError):
    """The engine lacks something that the request needs."""

    status = 422
    reason = Reason.REFUSED


class DeadlineError(EngineError):
    """The answer did not come before the deadline."""

    status = 504
    reason = Reason.DEADLINE
