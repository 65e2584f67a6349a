"""MathML to TeX: the author's own TeX if the page contains it, otherwise a simple translation."""

import re

from kanana_jax.data.extract.html.tree import Node, text_of
from kanana_jax.data.extract.markup import words

_OPERATORS = {
    "−": "-", "×": r"\times", "⋅": r"\cdot", "·": r"\cdot", "∗": "*", "÷": r"\div", "±": r"\pm", "∓": r"\mp",
    "≤": r"\le", "≥": r"\ge", "≠": r"\ne", "≈": r"\approx", "≡": r"\equiv", "∼": r"\sim", "∝": r"\propto",
    "→": r"\to", "←": r"\leftarrow", "⇒": r"\Rightarrow", "⇔": r"\Leftrightarrow", "↦": r"\mapsto",
    "∈": r"\in", "∉": r"\notin", "⊂": r"\subset", "⊆": r"\subseteq", "∪": r"\cup", "∩": r"\cap", "∅": r"\emptyset",
    "∀": r"\forall", "∃": r"\exists", "¬": r"\neg", "∧": r"\wedge", "∨": r"\vee", "∞": r"\infty", "∂": r"\partial",
    "∇": r"\nabla", "∑": r"\sum", "∏": r"\prod", "∫": r"\int", "∮": r"\oint", "√": r"\surd", "…": r"\ldots",
    "⋯": r"\cdots", "⋮": r"\vdots", "′": "'", "∘": r"\circ", "⊕": r"\oplus", "⊗": r"\otimes", "†": r"\dagger",
    "ℏ": r"\hbar", "ℓ": r"\ell", "ℝ": r"\mathbb{R}", "ℂ": r"\mathbb{C}", "ℕ": r"\mathbb{N}", "ℤ": r"\mathbb{Z}",
    "⟨": r"\langle", "⟩": r"\rangle", "‖": r"\|", "{": r"\{", "}": r"\}", "%": r"\%", "#": r"\#", "&": r"\&",
    "\u2061": "", "\u2062": "", "\u2063": "", "\u2064": "",
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega", "ϵ": "epsilon", "ϕ": "phi",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Υ": "Upsilon",
    "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_FUNCTIONS = words("sin cos tan cot sec csc sinh cosh tanh log ln exp lim max min sup inf det dim ker gcd")
_ACCENTS = {"^": "hat", "ˆ": "hat", "¯": "bar", "‾": "bar", "~": "tilde", "˜": "tilde", "→": "vec", "˙": "dot",
            "¨": "ddot", "⏞": "overbrace", "ˇ": "check"}  # fmt: skip
# Real formulas nest up to a dozen levels. The translation is built bottom-up and copies its text at every level.
_MAX_DEPTH = 60


def to_tex(math: Node) -> str:
    """The TeX of a `<math>` element; "" if it is empty or nested too deep."""
    annotated = _annotation(math)
    if annotated:
        return annotated.strip()
    if alternative := math.get("alttext").strip():
        return alternative
    return re.sub(r" +", " ", _translate(math)).strip()


def _annotation(math: Node) -> str:
    stack: list[Node | str] = [math]
    while stack:
        item = stack.pop()
        if isinstance(item, Node):
            if item.tag == "annotation" and "tex" in item.get("encoding").lower():
                return text_of(item)
            stack += reversed(item.children)
    return ""


def _translate(math: Node) -> str:
    done: dict[int, str] = {}
    stack: list[tuple[Node, int, bool]] = [(math, 0, False)]
    while stack:
        node, depth, ready = stack.pop()
        children = [child for child in node.children if isinstance(child, Node)]
        if depth > _MAX_DEPTH:
            return ""
        if node.tag in ("annotation", "annotation-xml"):
            done[id(node)] = ""
        elif ready or not children:
            done[id(node)] = _element(node, [done.pop(id(child)) for child in children])
        else:
            stack.append((node, depth, True))
            stack += [(child, depth + 1, False) for child in reversed(children)]
    return done[id(math)]


def _symbol(text: str) -> str:
    if text in _OPERATORS:
        tex = _OPERATORS[text]
    elif text in _GREEK:
        tex = "\\" + _GREEK[text]
    else:
        return text
    return tex + " " if tex[-1:].isalpha() else tex


def _group(tex: str) -> str:
    return "{" + tex.strip() + "}"


def _base(tex: str) -> str:
    bare = tex.strip()
    return bare if len(bare) <= 1 or re.fullmatch(r"\\[A-Za-z]+", bare) else _group(bare)


def _element(node: Node, inner: list[str]) -> str:
    tag = node.tag
    at = [*inner, "", "", ""]
    if tag in ("mi", "mn", "mo", "ms", "mtext"):
        text = " ".join(text_of(node).split())
        if tag == "mtext" or tag == "ms":
            return rf"\text{_group(text)}" if text else " "
        if tag == "mi" and len(text) > 1 and text.isascii():
            return f"\\{text} " if text in _FUNCTIONS else rf"\mathrm{_group(text)}"
        return "".join(map(_symbol, text)) if len(text) < 4 else text
    if tag == "mfrac":
        return rf"\frac{_group(at[0])}{_group(at[1])}"
    if tag == "msqrt":
        return rf"\sqrt{_group(''.join(inner))}"
    if tag == "mroot":
        return rf"\sqrt[{at[1].strip()}]{_group(at[0])}"
    if tag in ("msup", "msub"):
        return f"{_base(at[0])}{'^' if tag == 'msup' else '_'}{_group(at[1])}"
    if tag in ("msubsup", "munderover"):
        return f"{_base(at[0])}_{_group(at[1])}^{_group(at[2])}"
    if tag == "munder":
        return f"{_base(at[0])}_{_group(at[1])}"
    if tag == "mover":
        raw = text_of([c for c in node.children if isinstance(c, Node)][1]).strip() if len(inner) > 1 else ""
        return rf"\{_ACCENTS[raw]}{_group(at[0])}" if raw in _ACCENTS else f"{_base(at[0])}^{_group(at[1])}"
    if tag == "mtable":
        return r"\begin{matrix}" + r" \\ ".join(inner) + r"\end{matrix}"
    if tag in ("mtr", "mlabeledtr"):
        return " & ".join(inner)
    if tag == "mspace":
        return " "
    if tag == "mphantom":
        return ""
    return "".join(inner)
