"""The phones that the embedded voice speaks: flite's American English set, with `pau` for silence."""

PHONES = (
    "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
).split()
_INDEX = {phone: index + 1 for index, phone in enumerate(PHONES)}  # 0 is padding


def index_of(phone: str) -> int:
    """Index of a phone, 1 to 41; ValueError for one that the voice does not have."""
    if phone not in _INDEX:
        raise ValueError(f"{phone!r} is no phone of the embedded voice; it has: {' '.join(PHONES)}")
    return _INDEX[phone]
