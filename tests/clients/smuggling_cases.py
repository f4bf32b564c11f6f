"""The corpus of `smuggling.py`: requests that two parsers may read in two ways, and what may become of them.

Each case is the bytes of one connection and the outcomes that RFC 9112 (HTTP/1.1) and RFC 9110 (HTTP) leave: a refusal
(a status, or `CUT`, a connection closed without an answer), or requests that arrive at the backend, one answer each.
Where a request is ambiguous the connection must end with its answer. `python smuggling_cases.py` prints them all.
"""

from dataclasses import dataclass

# The connection was closed without an answer.
CUT = 0

# The request that must never be seen where the corpus hides it, and never as a part of another.
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"

# A body that arrived in part only: the backend was told so by the end of its connection.
BROKEN = "broken"


@dataclass(frozen=True)
class Outcome:
    # The statuses of the answers, in order.
    answers: tuple
    # What the backend may have seen: (method, target, body) each.
    sees: tuple
    # Whether the connection ends with the last answer; None leaves it open.
    ends: bool | None


@dataclass(frozen=True)
class Case:
    family: str
    name: str
    rfc: str
    data: bytes
    outcomes: tuple

    @property
    def id(self):
        return f"{self.family}: {self.name}"

    def allowed(self):
        return " or ".join(dict.fromkeys(shown(outcome) for outcome in self.outcomes))


def shown(outcome):
    answers = ", ".join("closed" if answer == CUT else str(answer) for answer in outcome.answers)
    return answers + {True: " and closed", False: "", None: ""}[outcome.ends and outcome.answers != (CUT,)]


def refused(*statuses, ends=True):
    """Turned away with one of these; nothing gets to the backend."""
    return tuple(Outcome((status,), (), True if status == CUT else ends) for status in statuses)


def passed(*requests, ends=False, more=()):
    """Answered 200 by the backend, which saw exactly these requests."""
    return (Outcome((200,) * len(requests) + tuple(more), requests, ends),)


def broken_off(method="POST", target="/echo"):
    """The head was passed on before the body turned out to be none: the backend is told by a closed connection."""
    return tuple(Outcome((status,), ((method, target, BROKEN),), True) for status in (400, CUT))


ECHO = ("POST", "/echo", b"hello")
EMPTY = ("POST", "/echo", b"")
GET = ("GET", "/echo", b"")
GOT_HIDDEN = ("GET", "/hidden", b"")

BAD = refused(400)
# Before a whole line was understood, or in a protocol that is none, silence will do.
BAD_OR_CUT = refused(400, CUT)
UNKNOWN_CODING = refused(400, 501)


def head(*lines, method="POST", target="/echo", version="HTTP/1.1", host="a"):
    """A request's head: each line as it is, `Host` first unless it is None."""
    start = [f"{method} {target} {version}"] + ([] if host is None else [f"Host: {host}"])
    return b"\r\n".join([line.encode("latin-1") if isinstance(line, str) else line for line in [*start,
                                                                                                *lines]]) + b"\r\n\r\n"


def chunked(body, *lines):
    return head("Transfer-Encoding: chunked", *lines) + body


CASES = []


def case(family, name, rfc, data, *outcomes):
    CASES.append(Case(family, name, rfc, data, sum(outcomes, ())))


# Content-Length: RFC 9110 section 8.6, RFC 9112 section 6.3

LENGTH = "length"
ONE, LIST, VALUE = "9112 6.3 (5)", "9110 8.6", "9110 8.6: 1*DIGIT"

case(LENGTH, "once", ONE, head("Content-Length: 5") + b"hello", passed(ECHO))
case(LENGTH, "twice the same", ONE, head("Content-Length: 5", "Content-Length: 5") + b"hello", BAD, passed(ECHO))
case(LENGTH, "twice, the second longer", ONE, head("Content-Length: 5", "Content-Length: 6") + b"hello" + HIDDEN, BAD)
case(LENGTH, "twice, the second nothing", ONE, head(f"Content-Length: {len(HIDDEN)}", "Content-Length: 0") + HIDDEN,
     BAD)
case(LENGTH, "twice, first nothing", ONE, head("Content-Length: 0", f"content-length: {len(HIDDEN)}") + HIDDEN, BAD)
case(LENGTH, "a list of the same", LIST, head("Content-Length: 5, 5") + b"hello", BAD, passed(ECHO))
case(LENGTH, "a list of two", LIST, head(f"Content-Length: 0, {len(HIDDEN)}") + HIDDEN, BAD)
case(LENGTH, "a list with an empty member", LIST, head("Content-Length: 5,") + b"hello", BAD, passed(ECHO))
for _value in ["-5", "+5", "0x5", "5 5", "5;", "5.0", "5e0", "five", "", " ", "\u00b2", "5\x00", "5\x0b", "\x0c5",
               "5_0", "'5'"]:
    case(LENGTH, f"value {_value!r}", VALUE, head(f"Content-Length: {_value}") + b"hello" + HIDDEN, BAD)
for _value in ["4294967301", "9223372036854775807"]:
    case(LENGTH, f"a promise of {_value}", "9110 15.5.14", head(f"Content-Length: {_value}") + b"hello",
         refused(400, 413))
for _value in ["18446744073709551615", "18446744073709551616", "18446744073709551621", "9" * 400]:
    case(LENGTH, f"overflow by {len(_value)} digits ending in {_value[-2:]}", "9110 8.6: anticipate large numerals",
         head(f"Content-Length: {_value}") + b"hello" + HIDDEN, refused(400, 413, 431))
case(LENGTH, "leading zeros", VALUE, head("Content-Length: 0005") + b"hello", BAD, passed(ECHO))
case(LENGTH, "blanks around the value", "9112 5: OWS", head("Content-Length: \t 5 \t ") + b"hello", passed(ECHO))
case(LENGTH, "no blank before the value", "9112 5: OWS", head("content-LENGTH:5") + b"hello", passed(ECHO))
case(LENGTH, "a space before the colon", "9112 5.1: MUST be refused", head("Content-Length : 5") + b"hello", BAD)
case(LENGTH, "a tab before the colon", "9112 5.1: MUST be refused", head("Content-Length\t: 5") + b"hello", BAD)
case(LENGTH, "underscore in the name", "9110 5.1: another field", head("Content_Length: 5"), BAD, passed(EMPTY))
case(LENGTH, "named by Connection", "9110 7.6.1", head("Connection: close, content-length",
                                                       "Content-Length: 5") + b"hello",
     BAD, passed(ECHO, ends=True))
case(LENGTH, "on GET", "9110 9.3.1", head("Content-Length: 5", method="GET") + b"hello", BAD,
     passed(("GET", "/echo", b"hello")))
case(LENGTH, "on GET, a request as its body", "9110 9.3.1", head(f"Content-Length: {len(HIDDEN)}",
                                                                 method="GET") + HIDDEN,
     BAD, passed(("GET", "/echo", HIDDEN)))
case(LENGTH, "on HEAD", "9110 9.3.2", head("Content-Length: 5", method="HEAD") + b"hello",
     BAD, passed(("HEAD", "/echo", b"hello")))
case(LENGTH, "none, so what follows is a request", "9112 6.3 (7)", head() + HIDDEN, passed(EMPTY, GOT_HIDDEN))
case(LENGTH, "body longer than it", "9112 6.3 (6)", head("Content-Length: 5") + b"hello" + HIDDEN,
     passed(ECHO, GOT_HIDDEN))
case(LENGTH, "body longer than it by garbage", "9112 2.2", head("Content-Length: 5") + b"hello\x00\x01\x02\r\n\r\n",
     passed(ECHO, ends=True, more=(400,)), passed(ECHO, ends=True))
case(LENGTH, "above the largest body", "9110 15.5.14", head("Content-Length: 10485761") + HIDDEN, refused(413))

# Content-Length and Transfer-Encoding: RFC 9112 section 6.1 and 6.3 (3)

BOTH = "length and coding"
MAY = "9112 6.3 (3): refuse, or the coding counts and the connection ends"
_LAST = b"0\r\n\r\n"
_PIECE = b"5\r\nhello\r\n0\r\n\r\n"

for _order in (0, 1):
    def both(length, coding="Transfer-Encoding: chunked", order=_order):
        return head(*[length, coding][::-1 if order else 1])
    _word = ["length first", "coding first"][_order]
    case(BOTH, f"{_word}, length covers a hidden request", MAY,
         both(f"Content-Length: {len(_LAST + HIDDEN)}") + _LAST + HIDDEN,
         BAD, passed(EMPTY, ends=True))
    case(BOTH, f"{_word}, length ends within the chunks", MAY,
         both("Content-Length: 4") + b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n",
         BAD, passed(("POST", "/echo", HIDDEN), ends=True))
    case(BOTH, f"{_word}, length right", MAY, both(f"Content-Length: {len(_PIECE)}") + _PIECE, BAD,
         passed(ECHO, ends=True))
    case(BOTH, f"{_word}, length 0", MAY, both("Content-Length: 0") + _PIECE + HIDDEN, BAD, passed(ECHO, ends=True))
    case(BOTH, f"{_word}, length invalid", MAY, both("Content-Length: x") + _PIECE + HIDDEN, BAD,
         passed(ECHO, ends=True))
    case(BOTH, f"{_word}, coding unknown", "9112 6.3 (4)", both("Content-Length: 5",
                                                                "Transfer-Encoding: xchunked") + b"hello" + HIDDEN,
         UNKNOWN_CODING)
    case(BOTH, f"{_word}, keep-alive asked for", MAY,
         both("Content-Length: 6\r\nConnection: keep-alive") + _LAST + HIDDEN, BAD, passed(EMPTY, ends=True))
case(BOTH, "lengths around the coding", MAY,
     head("Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 6") + _LAST + HIDDEN, BAD,
     passed(EMPTY, ends=True))
case(BOTH, "on GET", MAY, head("Content-Length: 6", "Transfer-Encoding: chunked", method="GET") + _LAST + HIDDEN,
     BAD, passed(GET, ends=True))
case(BOTH, "the length in lower case after many lines", MAY,
     head("Transfer-Encoding: chunked", *(f"X-{n}: {'y' * 80}" for n in range(90)),
          "content-length: 6") + _LAST + HIDDEN,
     BAD, passed(EMPTY, ends=True))

# Transfer-Encoding: RFC 9112 section 6.1, 6.3 (4) and 7

CODING = "coding"
FINAL, UNKNOWN, TWICE, GRAMMAR = "9112 6.3 (4)", "9112 6.1: 501", "9112 6.1: chunked only once", "9110 5.5, 5.6.2"

def coding(*values, name="Transfer-Encoding", **how):
    return head(*(f"{name}: {value}" for value in values), **how)

case(CODING, "chunked", "9112 7.1", coding("chunked") + _PIECE, passed(ECHO))
case(CODING, "in capitals", "9112 7: case-insensitive", coding("CHUNKED") + _PIECE, passed(ECHO))
case(CODING, "blanks around it", "9112 5: OWS", coding("\t  chunked \t") + _PIECE, passed(ECHO))
case(CODING, "on GET", "9112 6.3 (4)", coding("chunked", method="GET") + _PIECE, BAD,
     passed(("GET", "/echo", b"hello")))
case(CODING, "twice", TWICE, coding("chunked", "chunked") + _PIECE + HIDDEN, UNKNOWN_CODING)
case(CODING, "twice in one line", TWICE, coding("chunked, chunked") + _PIECE + HIDDEN, UNKNOWN_CODING)
for _value in ["identity", "xchunked", "chunkedx", "chunked, gzip", "chunked, identity", "gzip", "", "\"chunked\"",
               "'chunked'",
               "chunked;q=1", "chunk", "chunked\u00a0", "\u00ffchunked", "chunked chunked", "chunked/1"]:
    case(CODING, f"value {_value!r}", FINAL, coding(_value) + _PIECE + HIDDEN, UNKNOWN_CODING)
for _values in [("identity", "chunked"), ("chunked", "identity"), ("chunked", "x"), ("x", "chunked"), ("", "chunked")]:
    _ways = UNKNOWN_CODING + (passed(ECHO) if _values == ("", "chunked") else ())
    case(CODING, f"lines {_values!r}", UNKNOWN, coding(*_values) + _PIECE + HIDDEN,
         _ways if _values[0] else UNKNOWN_CODING + passed(ECHO, GOT_HIDDEN))
for _value in ["gzip, chunked", "x, chunked", "identity, chunked", "chunked;x=1, chunked"]:
    case(CODING, f"value {_value!r}", UNKNOWN, coding(_value) + _PIECE + HIDDEN, UNKNOWN_CODING)
case(CODING, "an empty member", "9110 5.6.1: ignore", coding(", chunked,") + _PIECE, UNKNOWN_CODING, passed(ECHO))
for _value in ["\x0bchunked", "chunked\x0b", "\x0cchunked", "chunked\x00", "\x00chunked", "\x08chunked", "chunked\x7f"]:
    case(CODING, f"value {_value!r}", GRAMMAR, coding(_value) + _PIECE + HIDDEN, UNKNOWN_CODING)
case(CODING, "a space before the colon", "9112 5.1: MUST be refused",
     coding("chunked", name="Transfer-Encoding ") + _PIECE, BAD)
case(CODING, "a tab before the colon", "9112 5.1: MUST be refused",
     coding("chunked", name="Transfer-Encoding\t") + _PIECE, BAD)
case(CODING, "a blank before the name", "9112 2.2, 5.2", head("X-Y: z", " Transfer-Encoding: chunked",
                                                              "Content-Length: 5") + b"hello", BAD)
case(CODING, "a space in the name", "9110 5.1", coding("chunked", name="Transfer Encoding") + _PIECE, BAD)
case(CODING, "a NUL in the name", "9110 5.1", coding("chunked", name="Transfer\x00-Encoding") + _PIECE, BAD)
case(CODING, "a byte behind the name", "9110 5.1", coding("chunked", name="Transfer-Encoding\xff") + _PIECE, BAD)
case(CODING, "underscore in the name", "9110 5.1: another field",
     head("Transfer_Encoding: chunked", "Content-Length: 5") + b"hello",
     BAD, passed(ECHO))
case(CODING, "folded", "9112 5.2", head("Transfer-Encoding:", " chunked") + _PIECE + HIDDEN, BAD,
     passed(ECHO, GOT_HIDDEN))
case(CODING, "in a folded line", "9112 5.2", head("X-Y: z", "\tTransfer-Encoding: chunked",
                                                  "Content-Length: 5") + b"hello",
     BAD, passed(ECHO))
case(CODING, "behind a bare CR", "9112 2.2", head("X-Y: z\rTransfer-Encoding: chunked", "Content-Length: 5") + b"hello",
     BAD, passed(ECHO))
case(CODING, "behind a bare LF", "9112 2.2", head("X-Y: z\nTransfer-Encoding: chunked") + _PIECE, BAD, passed(ECHO))
case(CODING, "in HTTP/1.0", "9112 6.1: faulty, close", coding("chunked", version="HTTP/1.0") + _PIECE + HIDDEN,
     BAD, passed(ECHO, ends=True))
case(CODING, "in HTTP/1.0 with a length", "9112 6.1: faulty, close",
     head("Connection: keep-alive", "Content-Length: 5", "Transfer-Encoding: chunked",
          version="HTTP/1.0") + _LAST + HIDDEN,
     BAD, passed(EMPTY, ends=True))
case(CODING, "named by Connection", "9110 7.6.1",
     head("Connection: close, transfer-encoding", "Transfer-Encoding: chunked") + _PIECE, BAD, passed(ECHO, ends=True))
case(CODING, "TE is no Transfer-Encoding", "9110 10.1.4", head("TE: chunked", "Content-Length: 5",
                                                               "Connection: TE") + b"hello",
     BAD, passed(ECHO))

# Chunks: RFC 9112 section 7.1

CHUNK = "chunk"
SIZE, DATA, EXTENSION, TRAILER = "9112 7.1: 1*HEXDIG", "9112 7.1", "9112 7.1.1", "9110 6.5.1"

WRONG = BAD_OR_CUT + broken_off()

for _size in ["5", "0005", "00000000005"]:
    case(CHUNK, f"size {_size!r}", SIZE, chunked(f"{_size}\r\nhello\r\n0\r\n\r\n".encode()),
         WRONG if len(_size) > 9 else (), passed(ECHO))
case(CHUNK, "size in capitals", SIZE, chunked(b"A\r\n0123456789\r\n0\r\n\r\n"),
     passed(("POST", "/echo", b"0123456789")))
case(CHUNK, "the last one in many zeros", SIZE, chunked(b"5\r\nhello\r\n00000000\r\n\r\n"), WRONG, passed(ECHO))
for _size in ["-5", "+5", "0x5", " 5", "\t5", "5 5", "5,", "5h", "g", "", "\x005", "5\x00", "5\x0b", "\u00b2", "0x",
              "5\r"]:
    case(CHUNK, f"size {_size!r}", SIZE, chunked(f"{_size}\r\nhello\r\n0\r\n\r\n".encode("latin-1") + HIDDEN), WRONG)
for _size in ["10000000000000005", "fffffffffffffffff", "1" + "0" * 40]:
    case(CHUNK, f"size of {len(_size)} digits {_size[:2]}…{_size[-2:]}", "9112 7.1: MUST anticipate large numerals",
         chunked(f"{_size}\r\nhello\r\n0\r\n\r\n".encode() + HIDDEN), WRONG + tuple(
             Outcome((413,), sees, True) for sees in [(), (("POST", "/echo", BROKEN),)]))
case(CHUNK, "a blank behind the size", EXTENSION, chunked(b"5 \r\nhello\r\n0\r\n\r\n"), WRONG, passed(ECHO))
case(CHUNK, "a tab behind the size", EXTENSION, chunked(b"5\t\r\nhello\r\n0 \r\n\r\n"), WRONG, passed(ECHO))
case(CHUNK, "a short extension", EXTENSION, chunked(b"5;a=b\r\nhello\r\n0\r\n\r\n"), passed(ECHO))
case(CHUNK, "a quoted extension", EXTENSION, chunked(b'5;a="b;c"\r\nhello\r\n0;d\r\n\r\n'), passed(ECHO))
case(CHUNK, "an extension of 64 KiB", "9112 7.1.1: limit them",
     chunked(b"5;a=" + b"x" * 65536 + b"\r\nhello\r\n0\r\n\r\n"), WRONG)
case(CHUNK, "extensions of 64 KiB in all", "9112 7.1.1: limit them",
     chunked(b"".join(b"1;a=" + b"x" * 60 + b"\r\nx\r\n" for _ in range(1000)) + _LAST), WRONG)
case(CHUNK, "an extension with a bare LF", "9112 7.1.1", chunked(b"5;a\nhello\r\n0\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "an extension with a bare LF that hides a size", "9112 7.1.1", chunked(b"0;a\n5\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "an extension with a bare CR", "9112 2.2", chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "no CRLF behind the data", DATA, chunked(b"5\r\nhello0\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "other bytes than CRLF behind the data", DATA, chunked(b"5\r\nhelloXX0\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "data longer than the size", DATA, chunked(b"4\r\nhello\r\n0\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "data shorter than the size", DATA, chunked(b"6\r\nhello\r\n0\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "a bare LF behind the size", DATA, chunked(b"5\nhello\r\n0\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "a bare LF behind the data", DATA, chunked(b"5\r\nhello\n0\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "a bare CR behind the size", DATA, chunked(b"5\rhello\r\n0\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "a bare LF behind the last size", DATA, chunked(b"5\r\nhello\r\n0\n\r\n" + HIDDEN), WRONG)
# Known and wrong: the parser takes the LF for the beginning of trailers, and the next request with it. Nothing of it
# reaches a backend.
case(CHUNK, "a bare LF at the very end", DATA, chunked(b"5\r\nhello\r\n0\r\n\n" + HIDDEN), WRONG, passed(ECHO))
case(CHUNK, "a request in place of a size", DATA, chunked(HIDDEN), WRONG)
case(CHUNK, "a request as its data", DATA, chunked(b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n"),
     passed(("POST", "/echo", HIDDEN)))
case(CHUNK, "byte by byte", DATA, chunked(b"1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n"), passed(ECHO))
case(CHUNK, "what follows is a request", DATA, chunked(_PIECE + HIDDEN), passed(ECHO, GOT_HIDDEN))
case(CHUNK, "a trailer", TRAILER, chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "Trailer: X-Sum"), passed(ECHO))
for _trailer in ["Content-Length: 50", "Transfer-Encoding: chunked", "Host: hidden", "Authorization: hidden",
                 "X-Forwarded-For: hidden",
                 "X-Livegate-Api: hidden", "Connection: close", "Upgrade: hidden", "Content-Type: hidden",
                 "Via: hidden"]:
    _name = _trailer.split(":")[0]
    case(CHUNK, f"a trailer {_name}", TRAILER,
         chunked(f"5\r\nhello\r\n0\r\n{_trailer}\r\n\r\n".encode(), f"Trailer: {_name}"), WRONG, passed(ECHO),
         passed(ECHO, ends=True))
case(CHUNK, "a trailer that nobody announced", TRAILER, chunked(b"5\r\nhello\r\n0\r\nX-Hidden: hidden\r\n\r\n"),
     passed(ECHO))
case(CHUNK, "a trailer without a colon", "9112 5", chunked(b"5\r\nhello\r\n0\r\nhidden\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "a trailer with a space before the colon", "9112 5.1",
     chunked(b"5\r\nhello\r\n0\r\nX-Y : hidden\r\n\r\n" + HIDDEN), WRONG)
case(CHUNK, "a trailer that is folded", "9112 5.2", chunked(b"5\r\nhello\r\n0\r\nX-Y: z\r\n hidden\r\n\r\n"), WRONG,
     passed(ECHO))
case(CHUNK, "trailers of 64 KiB", "9112 7.1.2", chunked(b"5\r\nhello\r\n0\r\nX-Y: " + b"z" * 65536 + b"\r\n\r\n"),
     WRONG,
     tuple(Outcome((431,), sees, True) for sees in [(), (("POST", "/echo", BROKEN),)]))
case(CHUNK, "2000 trailers", "9112 7.1.2", chunked(b"5\r\nhello\r\n0\r\n" + b"X-Y: z\r\n" * 2000 + b"\r\n"), WRONG,
     tuple(Outcome((431,), sees, True) for sees in [(), (("POST", "/echo", BROKEN),)]))

# The lines of a head: RFC 9112 section 2.2 and 5, RFC 9110 section 5

LINE = "line"
NAME, CONTENT, ENDING = "9110 5.1", "9110 5.5", "9112 2.2"


def line(*lines):
    return head(*lines, method="GET")


case(LINE, "bare LF at every end", "9112 2.2: MAY", b"GET /echo HTTP/1.1\nHost: a\n\n", BAD, passed(GET))
case(LINE, "bare LF at the last end", "9112 2.2: MAY", b"GET /echo HTTP/1.1\r\nHost: a\r\n\n", BAD, passed(GET))
case(LINE, "bare LF, then a request", "9112 2.2: MAY", b"GET /echo HTTP/1.1\nHost: a\n\n" + HIDDEN, BAD,
     passed(GET, GOT_HIDDEN))
case(LINE, "bare CR at every end", ENDING, b"GET /echo HTTP/1.1\rHost: a\r\r\r\n\r\n", BAD)
case(LINE, "bare CR in a value", ENDING, line("X-Y: z\rX-Hidden: hidden"), BAD)
case(LINE, "bare CR at the end of a value", ENDING, line("X-Y: z\r"), BAD)
case(LINE, "bare CR in a name", NAME, line("X-\rY: z"), BAD)
case(LINE, "bare CR in the first line", ENDING, b"GET /echo\r HTTP/1.1\r\nHost: a\r\n\r\n", BAD)
case(LINE, "CR CR LF at an end", ENDING, b"GET /echo HTTP/1.1\r\nHost: a\r\r\n\r\n", BAD)
case(LINE, "NUL in a name", NAME, line("X-\x00Y: z"), BAD)
case(LINE, "NUL in a value", CONTENT, line("X-Y: a\x00b"), BAD)
case(LINE, "NUL in the target", "9112 3", b"GET /echo\x00 HTTP/1.1\r\nHost: a\r\n\r\n", BAD)
case(LINE, "a control character in a value", "9110 5.5: MAY keep", line("X-Y: a\x01b"), BAD, passed(GET))
case(LINE, "DEL in a value", "9110 5.5: MAY keep", line("X-Y: a\x7fb"), BAD, passed(GET))
case(LINE, "a vertical tab as its value", "9110 5.5: MAY keep", line("X-Y: \x0b"), BAD, passed(GET))
case(LINE, "8-bit in a value", "9110 5.5: obs-text", line("X-Y: gr\u00fc\u00df"), BAD, passed(GET))
case(LINE, "8-bit in a name", NAME, line("X-\u00fc: z"), BAD)
case(LINE, "folded by a space", "9112 5.2", line("X-Y: z", " more"), BAD, passed(GET))
case(LINE, "folded by a tab", "9112 5.2", line("X-Y: z", "\tmore"), BAD, passed(GET))
case(LINE, "folded before there is a line", "9112 2.2", b"GET /echo HTTP/1.1\r\n X-Hidden: hidden\r\nHost: a\r\n\r\n",
     BAD, passed(GET))
case(LINE, "without a colon", "9112 5", line("X-Hidden"), BAD)
case(LINE, "an empty name", NAME, line(": hidden"), BAD)
case(LINE, "only a colon", NAME, line(":"), BAD)
case(LINE, "a space before the colon", "9112 5.1: MUST be refused", line("X-Y : hidden"), BAD)
case(LINE, "a space in a name", NAME, line("X Y: hidden"), BAD)
for _name in ["X(Y", "X[Y", "X{Y", "X,Y", "X/Y", "X@Y", "X=Y", 'X"Y', "X\\Y", "X;Y", "X<Y"]:
    case(LINE, f"{_name[1]!r} in a name", NAME, line(f"{_name}: hidden"), BAD)
case(LINE, "an empty value", CONTENT, line("X-Y:"), passed(GET))
case(LINE, "a name of 5,000 bytes", "9110 5.4", line(f"{'x' * 5000}: y"), refused(400, 431), passed(GET))
case(LINE, "a value of 9,000 bytes", "9110 5.4", line(f"X-Y: {'y' * 9000}"), passed(GET))
case(LINE, "100 lines", "9110 5.4", line(*["X-Y: z"] * 99), passed(GET))
case(LINE, "101 lines", "6585 5", line(*["X-Y: z"] * 100), refused(431))
case(LINE, "10,240 bytes", "6585 5", line("X-Y: " + "y" * (10240 - len(line("X-Y: ")))), passed(GET))
case(LINE, "10,241 bytes", "6585 5", line("X-Y: " + "y" * (10241 - len(line("X-Y: ")))), refused(431))
case(LINE, "100 KiB", "6585 5", line(*[f"X-Y: {'y' * 1000}"] * 100), refused(431))
case(LINE, "100 KiB without an end", "6585 5", b"GET /echo HTTP/1.1\r\nHost: a\r\nX-Y: " + b"y" * 102400,
     refused(431, CUT))
case(LINE, "headers that only the gateway may set", "9110 7.6.1",
     line("X-Livegate-Api: hidden", "X_Livegate_Stage: hidden", "Proxy-Connection: hidden", "Keep-Alive: hidden"),
     passed(GET))
case(LINE, "Connection names the headers that say who asks", "9110 7.6.1",
     line("Connection: x-forwarded-for, host, via, forwarded, keep-alive"), BAD, passed(GET))

# The first line: RFC 9112 section 3

FIRST = "first line"
TARGET, VERSION, METHOD = "9112 3.2", "9112 2.3", "9110 9.1"


def first(text, *lines):
    return text.encode("latin-1") + b"\r\nHost: a\r\n" + b"".join(line.encode() + b"\r\n" for line in lines) + b"\r\n"


case(FIRST, "leading CRLF", "9112 2.2: SHOULD ignore", b"\r\n" + first("GET /echo HTTP/1.1"), passed(GET))
case(FIRST, "100 leading CRLFs", "9112 2.2", b"\r\n" * 100 + first("GET /echo HTTP/1.1"), BAD_OR_CUT, passed(GET))
case(FIRST, "leading space", "9112 3", first(" GET /echo HTTP/1.1"), BAD)
case(FIRST, "two spaces", "9112 3: MAY", first("GET  /echo HTTP/1.1"), BAD, passed(GET))
case(FIRST, "a tab", "9112 3: MAY", first("GET\t/echo\tHTTP/1.1"), BAD, passed(GET))
case(FIRST, "a space at its end", "9112 3: MAY", first("GET /echo HTTP/1.1 "), BAD, passed(GET))
case(FIRST, "a space in the target", TARGET, first("GET /a b HTTP/1.1"), BAD)
case(FIRST, "a version in the target", TARGET, first("GET /a HTTP/1.1 HTTP/1.1"), BAD)
case(FIRST, "no target", "9112 3", first("GET HTTP/1.1"), BAD)
case(FIRST, "no slash", TARGET, first("GET echo HTTP/1.1"), BAD)
case(FIRST, "a fragment", "9112 3.2: invalid, SHOULD 400", first("GET /echo#part HTTP/1.1"), BAD, passed(GET))
case(FIRST, "two slashes are a path", "9112 3.2.1", first("GET //hidden.example/echo HTTP/1.1"), BAD,
     passed(("GET", "//hidden.example/echo", b"")))
case(FIRST, "encoded CR LF stays encoded", TARGET, first("GET /a%0d%0aX-Hidden:%20hidden?b=%0d%0a HTTP/1.1"),
     BAD, passed(("GET", "/a%0d%0aX-Hidden:%20hidden?b=%0d%0a", b"")))
case(FIRST, "encoded NUL and space stay encoded", TARGET, first("GET /%00%20%20HTTP/1.1 HTTP/1.1"),
     BAD, passed(("GET", "/%00%20%20HTTP/1.1", b"")))
case(FIRST, "8-bit in the target", TARGET, first("GET /\xff HTTP/1.1"), BAD)
case(FIRST, "UTF-8 in the target", TARGET, "GET /gr\u00fc\u00df HTTP/1.1\r\nHost: a\r\n\r\n".encode(), BAD)
case(FIRST, "a dot segment", "9110 4.2.3", first("GET /a/../b HTTP/1.1"), refused(400, ends=None))
case(FIRST, "an encoded dot segment", "9110 4.2.3", first("GET /a/%2e%2E/b HTTP/1.1"), refused(400, ends=None))
case(FIRST, "4,096 bytes of target", "9110 15.5.15", first(f"GET /{'a' * 4095} HTTP/1.1"),
     passed(("GET", f"/{'a' * 4095}", b"")))
case(FIRST, "70,000 bytes of target", "9110 15.5.15", first(f"GET /{'a' * 70000} HTTP/1.1"), refused(414, 431))
case(FIRST, "absolute-form", "9112 3.2.2", first("GET http://a/echo HTTP/1.1"), passed(GET))
case(FIRST, "absolute-form of another host than Host", "9112 3.2.2: the target counts",
     first("GET http://b/echo HTTP/1.1"), BAD, passed(GET))
case(FIRST, "absolute-form with a user", "9110 4.2.4", first("GET http://user@a/echo HTTP/1.1"),
     refused(400, ends=None))
case(FIRST, "absolute-form without a host", "9110 4.2.1", first("GET http:///echo HTTP/1.1"), BAD)
case(FIRST, "absolute-form of a scheme that is none", "9110 4.2", first("GET gopher://a/echo HTTP/1.1"),
     refused(400, 421, ends=None), passed(GET))
case(FIRST, "absolute-form without a path", "9112 3.2.1", first("GET http://a HTTP/1.1"), passed(("GET", "/", b"")))
case(FIRST, "CONNECT", "9110 9.3.6", first("CONNECT example.com:443 HTTP/1.1") + HIDDEN,
     refused(400, 403, 404, 405, 501))
case(FIRST, "CONNECT to a path", "9112 3.2.3", first("CONNECT /echo HTTP/1.1") + HIDDEN,
     refused(400, 403, 404, 405, 501))
case(FIRST, "OPTIONS *", "9112 3.2.4", first("OPTIONS * HTTP/1.1"), refused(400, 404, 405, 501, ends=None),
     passed(("OPTIONS", "*", b"")))
case(FIRST, "GET *", "9112 3.2.4", first("GET * HTTP/1.1"), refused(400, 404, ends=None))
case(FIRST, "a method of their own", METHOD, first("BREW /echo HTTP/1.1"), refused(400, 404, 405, 501, ends=None),
     passed(("BREW", "/echo", b"")))
case(FIRST, "a method in lower case", METHOD, first("get /echo HTTP/1.1"), refused(400, 404, 405, 501, ends=None),
     passed(("get", "/echo", b"")))
for _method in ["G@T", "GE\x00T", "", "(GET)", "G\xcbT", "GET:", '"GET"']:
    case(FIRST, f"method {_method!r}", METHOD, first(f"{_method} /echo HTTP/1.1"), BAD)
case(FIRST, "a method of 5,000 bytes", "9112 3: 501", first(f"{'A' * 5000} /echo HTTP/1.1"), refused(400, 501),
     passed(("A" * 5000, "/echo", b"")))
for _version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0", "HTTP/1.10", "HTTP/01.1", "HTTP/1.1x", "HTTP/1.",
                 "http/1.1", "HTTP 1.1",
                 "HTTPS/1.1", "HTTP/11", "ICY/1.1", "HTTP/1,1"]:
    _as_known = passed(GET) if _version == "HTTP/1.2" else ()
    case(FIRST, f"version {_version!r}", VERSION, first(f"GET /echo {_version}"), refused(400, 505, CUT), _as_known)
case(FIRST, "no version", "9112 2.3: 0.9 is gone", b"GET /echo\r\n\r\n", BAD_OR_CUT)
case(FIRST, "HTTP/1.0 without Host", "9112 3.2", b"GET /echo HTTP/1.0\r\n\r\n", passed(GET, ends=True))
case(FIRST, "HTTP/1.0 that stays", "9112 9.3", b"GET /echo HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
     passed(GET), passed(GET, ends=True))
case(FIRST, "HTTP/1.0, then a request", "9112 9.3", b"GET /echo HTTP/1.0\r\nHost: a\r\n\r\n" + HIDDEN,
     passed(GET, ends=True))
case(FIRST, "a TLS ClientHello", "8446 4.1.2", bytes.fromhex("16030100c8010000c40303") + bytes(range(189)), BAD_OR_CUT)
case(FIRST, "an SSH greeting", "9112 3", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", BAD_OR_CUT)
case(FIRST, "an SMTP greeting", "9112 3", b"EHLO hidden\r\nMAIL FROM:<a@b>\r\n\r\n", BAD_OR_CUT)
case(FIRST, "an answer in place of a request", "9112 2.1", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", BAD_OR_CUT)

# Host: RFC 9112 section 3.2

HOST = "host"


def hosts(*lines, target="/echo"):
    return head(*lines, method="GET", target=target, host=None)


case(HOST, "missing", "9112 3.2: MUST be 400", hosts(), refused(400, ends=None))
case(HOST, "missing beside an absolute-form", "9112 3.2: MUST be 400", hosts(target="http://a/echo"),
     refused(400, ends=None))
case(HOST, "twice the same", "9112 3.2: MUST be 400", hosts("Host: a", "Host: a"), refused(400, ends=None))
case(HOST, "two", "9112 3.2: MUST be 400", hosts("Host: a", "Host: hidden"), refused(400, ends=None))
case(HOST, "two beside an absolute-form", "9112 3.2: MUST be 400",
     hosts("Host: a", "hOST: hidden", target="http://a/echo"), refused(400, ends=None))
case(HOST, "empty", "9110 4.2.1", hosts("Host:"), refused(400, ends=None))
for _value in ["a b", "a/b", "user@a", "a, b", "a:port", "a:99999", "[::1", "[zz]", "a?b", "a#b", "a\\b", "a\tb",
               "\u00fc", "a%00", "http://a", "a:80:80"]:
    case(HOST, f"value {_value!r}", "9112 3.2: MUST be 400", hosts(f"Host: {_value}"), refused(400, ends=None))
case(HOST, "with a NUL", "9112 3.2: MUST be 400", hosts("Host: a\x00"), BAD)
case(HOST, "with a space before the colon", "9112 5.1", hosts("Host : a"), BAD)
case(HOST, "folded", "9112 5.2", hosts("Host: a", " hidden"), BAD, passed(GET))
case(HOST, "with a port", "9110 7.2", hosts("Host: a:8080"), passed(GET))
case(HOST, "an IPv6 address", "9110 7.2", hosts("Host: [::1]:80"), passed(GET))
case(HOST, "other names for it", "9110 7.2", hosts("Host: a", "X-Forwarded-Host: hidden", "X-Host: hid",
                                                   "Forwarded: host=hidden"), passed(GET))

# Connections: RFC 9112 section 9, RFC 9110 section 7.8 and 10.1

STREAM = "connection"
case(STREAM, "two requests in one piece", "9112 9.3.2", line() + HIDDEN, passed(GET, GOT_HIDDEN))
case(STREAM, "twenty requests in one piece", "9112 9.3.2", b"".join(line() for _ in range(20)), passed(*[GET] * 20))
case(STREAM, "bodies of both kinds in one piece", "9112 9.3.2",
     head("Content-Length: 5") + b"hello" + chunked(_PIECE) + line() + head("Content-Length: 0") + HIDDEN,
     passed(ECHO, ECHO, GET, EMPTY, GOT_HIDDEN))
case(STREAM, "CRLF between two requests", "9112 2.2", head("Content-Length: 5") + b"hello\r\n" + HIDDEN,
     passed(ECHO, GOT_HIDDEN))
case(STREAM, "a good one before a bad one", "9112 9.3.2", line() + line("X Y: z") + HIDDEN,
     passed(GET, ends=True, more=(400,)))
case(STREAM, "a good one behind a bad one", "9112 9.3.2", line("X Y: z") + HIDDEN, BAD)
case(STREAM, "close, then a request", "9112 9.6", line("Connection: close") + HIDDEN, passed(GET, ends=True))
case(STREAM, "Close in a list", "9112 9.6", line("Connection: x, CLOSE") + HIDDEN, passed(GET, ends=True))
case(STREAM, "close and keep-alive", "9112 9.3", line("Connection: close", "Connection: keep-alive") + HIDDEN,
     passed(GET, ends=True))
case(STREAM, "HEAD, then a request", "9110 9.3.2", line().replace(b"GET", b"HEAD") + HIDDEN,
     passed(("HEAD", "/echo", b""), GOT_HIDDEN))
case(STREAM, "an expectation", "9110 10.1.1", head("Expect: 100-continue", "Content-Length: 5") + b"hello",
     passed(ECHO))
case(STREAM, "an expectation in HTTP/1.0", "9110 10.1.1: MUST ignore",
     head("Expect: 100-continue", "Content-Length: 5", version="HTTP/1.0") + b"hello",
     passed(ECHO, ends=True))
case(STREAM, "an expectation on GET", "9110 10.1.1", line("Expect: 100-continue") + HIDDEN, BAD,
     passed(GET, GOT_HIDDEN))
case(STREAM, "another expectation", "9110 10.1.1: MAY be 417",
     head("Expect: 200-maybe", "Content-Length: 5") + b"hello",
     refused(417, ends=None), passed(ECHO))
case(STREAM, "two expectations", "9110 10.1.1: MAY be 417", head("Expect: 100-continue, x",
                                                                 "Content-Length: 5") + b"hello",
     refused(417, ends=None), passed(ECHO))
_UPGRADE = "9110 7.8: MAY ignore"
case(STREAM, "an upgrade to h2c", _UPGRADE,
     line("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA") + HIDDEN,
     refused(400, 403, ends=None), passed(GET, GOT_HIDDEN))
case(STREAM, "an upgrade to h2c that Connection does not name", _UPGRADE,
     line("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA") + HIDDEN, refused(400, 403, ends=None),
     passed(GET, GOT_HIDDEN))
case(STREAM, "an upgrade with a body", _UPGRADE, head("Connection: upgrade", "Upgrade: x",
                                                      "Content-Length: 5") + b"hello" + HIDDEN,
     refused(400, 403, ends=None), passed(ECHO, GOT_HIDDEN))
case(STREAM, "an upgrade in HTTP/1.0", "9110 7.8: MUST ignore",
     b"GET /echo HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" + HIDDEN, passed(GET, ends=True))

# What can be said to the @connections API as well.
FRAMING = [one for one in CASES
           if one.family in (LENGTH, BOTH, CODING,
                             CHUNK) and one.data.startswith(b"POST /echo HTTP/1.1\r\nHost: a\r\n")]


def table(observed=None):
    """All cases as a table; `observed` adds what came, by id."""
    families = {}
    for one in CASES:
        families.setdefault(one.family, []).append(one)
    counts = ", ".join(f"{len(cases)} {family}" for family, cases in families.items())
    lines = [f"{len(CASES)} cases: {counts}.", "", "| case | RFC | may be answered | was |", "|---|---|---|---|"]
    rows = ((one.id, one.rfc, one.allowed(), (observed or {}).get(one.id, "")) for one in CASES)
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table())
