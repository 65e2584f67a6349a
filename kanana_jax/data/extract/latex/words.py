"""Tables of LaTeX commands for the renderer: symbols, accents, and which arguments are text."""

from kanana_jax.data.extract.markup import words

MATH_ENVIRONMENTS = words(
    "math displaymath equation equation* align align* alignat alignat* gather gather* multline multline* flalign "
    "flalign* eqnarray eqnarray* dmath dmath* subeqnarray IEEEeqnarray IEEEeqnarray*"
)
DROPPED_ENVIRONMENTS = words(
    "tikzpicture picture pgfpicture pspicture thebibliography tikzcd axis forest CCSXML biography IEEEbiography "
    "IEEEbiographynophoto overpic asy feynman circuitikz"
)
# Commands whose argument is rendered differently from the surrounding text.
FRAMED = words(
    "title caption captionof subcaption footnote footnotetext keywords texttt textsuperscript textsubscript abstract "
    "marginpar marginnote sidenote"
)
FIGURES = {"figure": "Figure", "wrapfigure": "Figure", "SCfigure": "Figure", "sidewaysfigure": "Figure",
           "marginfigure": "Figure", "floatingfigure": "Figure", "figwindow": "Figure", "sidefigure": "Figure",
           "SCfigure*": "Figure"}  # fmt: skip
TABLES = {"table": "Table", "wraptable": "Table", "sidewaystable": "Table", "algorithm": "Algorithm",
          "margintable": "Table", "longtable": "Table", "algorithm2e": "Algorithm", "SCtable": "Table",
          "floatingtable": "Table", "tabwindow": "Table", "listing": "Listing", "codelisting": "Listing",
          "program": "Program", "scheme": "Scheme", "chart": "Chart", "graph": "Graph", "algorithmfloat": "Algorithm",
          "threeparttable": "Table", "plate": "Plate", "video": "Video"}  # fmt: skip
# Environment → number of arguments before its rows.
TABULARS = {"tabular": 1, "tabular*": 2, "tabularx": 2, "tabulary": 2, "longtable": 1, "supertabular": 1, "tblr": 1,
            "longtabu": 1, "tabu": 1, "xltabular": 2}  # fmt: skip
LISTS = {"itemize": "-", "enumerate": "1", "description": "-", "compactitem": "-", "compactenum": "1", "list": "-",
         "inparaenum": "1", "itemize*": "-", "enumerate*": "1", "asparaenum": "1", "asparaitem": "-",
         "tasks": "1"}  # fmt: skip
# Environment → number of arguments that are layout.
ENVIRONMENT_ARGUMENTS = {"minipage": 1, "multicols": 1, "adjustbox": 1, "subfigure": 1, "subtable": 1, "wrapfigure": 2,
                         "wraptable": 2, "floatingfigure": 1, "floatingtable": 1, "spacing": 1,
                         "adjustwidth": 2, "textblock": 1, "list": 2, "CJK": 2, "CJK*": 2,
                         "algorithmic": 0, "tcolorbox": 0, "turn": 1, "rotate": 1}  # fmt: skip
THEOREMS = {
    "theorem": "Theorem", "lemma": "Lemma", "proposition": "Proposition", "corollary": "Corollary",
    "definition": "Definition", "remark": "Remark", "example": "Example", "conjecture": "Conjecture", "claim": "Claim",
    "thm": "Theorem", "lem": "Lemma", "prop": "Proposition", "cor": "Corollary", "defn": "Definition", "rem": "Remark",
    "assumption": "Assumption", "observation": "Observation", "fact": "Fact", "question": "Question",
    "problem": "Problem", "exercise": "Exercise", "note": "Note", "axiom": "Axiom", "situation": "Situation",
}  # fmt: skip
HEADINGS = {"part": 0, "chapter": 1, "section": 2, "subsection": 3, "subsubsection": 4, "paragraph": 5,
            "subparagraph": 6}  # fmt: skip

# Command → number of arguments that are not text.
DROPPED_ARGUMENTS = {
    **dict.fromkeys(
        words(
            "vspace hspace includegraphics bibliographystyle bibliography pagestyle thispagestyle pagenumbering input "
            "thanks nocite color usetikzlibrary hypersetup newcounter refstepcounter stepcounter "
            "phantom hphantom vphantom cline cmidrule specialrule graphicspath addbibresource index glossary date "
            "author affil affiliation institute address email keywordsname ccsdesc orcid orcidlink urlstyle usepackage "
            "tikzset pgfplotsset geometry theoremstyle documentclass captionsetup arraybackslash hyphenation "
            "includeonly special write typeout message todo linespread selectlanguage "
            "rowcolor cellcolor columncolor rowcolors titlerunning authorrunning tocauthor renewbibmacro "
            "allowdisplaybreaks shorttitle shortauthors acmConference acmYear acmISBN acmDOI setcopyright "
            "printbibliography numberwithin includepdf lstset newline pdfbookmark bookmark"
        ),
        1,
    ),
    **dict.fromkeys(
        words(
            "setlength addtolength setcounter addtocounter rule markboth resizebox fontfamily "
            "DeclareGraphicsExtensions newlength colorlet settowidth "
            "DeclarePairedDelimiter"
        ),
        2,
    ),
    "addcontentsline": 3, "definecolor": 3, "textcolor": 1, "colorbox": 1, "scalebox": 1, "raisebox": 1, "parbox": 1,
    "fcolorbox": 2, "hyperlink": 1, "hypertarget": 1, "captionof": 1, "rotatebox": 1, "foreignlanguage": 1,
    "fontsize": 2, "multirow": 2, "adjustbox": 1, "DeclareUrlCommand": 2,
    "algrenewcommand": 2, "newtheoremstyle": 9, "IfFileExists": 3, "DeclareOption": 2,
    "titleformat": 5, "titlespacing": 4, "setmainfont": 1, "setCJKmainfont": 1, "newfloat": 3, "floatname": 2,
    "ifdef": 2, "fancyhead": 1, "fancyfoot": 1, "lhead": 1, "rhead": 1, "chead": 1, "lfoot": 1, "rfoot": 1, "cfoot": 1,
}  # fmt: skip
# Commands followed by a length without braces.
DIMENSIONED = words("vskip hskip kern mskip parskip parindent baselineskip lineskip abovedisplayskip belowdisplayskip")
CITES = words(
    "cite citep citet citealp citealt citeauthor citeyear citeyearpar parencite textcite autocite footcite Cite Citet "
    "Citep citenum onlinecite shortcite cites supercite smartcite"
)
TEXTUAL_CITES = words("citet textcite Citet citealt")
REFS = words("ref eqref autoref cref Cref pageref nameref vref autopageref subref Cpageref labelcref zcref")

SYMBOLS = {
    "&": "&", "%": "%", "$": "$", "#": "#", "_": "_", "{": "{", "}": "}", " ": " ", ",": " ", ";": " ", ":": " ",
    "!": "", "/": "", "-": "", "@": "", ">": " ", "+": "", "*": "", "\\": "\n", "newline": "\n", "linebreak": "\n",
    "tabularnewline": "\n", "par": "\n\n", "quad": " ", "qquad": " ", "enspace": " ", "thinspace": " ", "space": " ",
    "nobreakspace": " ", "ldots": "…", "dots": "…", "textellipsis": "…", "textbackslash": "\\", "textasciitilde": "~",
    "textasciicircum": "^", "textless": "<", "textgreater": ">", "textbar": "|", "textbullet": "•", "textendash": "–",
    "textemdash": "—", "textquoteleft": "‘", "textquoteright": "’", "textquotedblleft": "“", "textquotedblright": "”",
    "textdegree": "°", "degree": "°", "textmu": "μ", "textregistered": "®", "texttrademark": "™", "copyright": "©",
    "textcopyright": "©", "pounds": "£", "euro": "€", "texteuro": "€", "S": "§", "P": "¶", "dag": "†", "ddag": "‡",
    "LaTeX": "LaTeX", "TeX": "TeX", "LaTeXe": "LaTeX2e", "BibTeX": "BibTeX", "XeTeX": "XeTeX", "ss": "ß", "ae": "æ",
    "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł", "aa": "å", "AA": "Å", "i": "ı", "j": "ȷ",
    "th": "þ", "TH": "Þ", "dh": "ð", "DH": "Ð", "checkmark": "✓", "cmark": "✓", "xmark": "✗", "ie": "i.e.",
    "eg": "e.g.",
    "textquotesingle": "'", "textquotedbl": '"', "textunderscore": "_", "textdollar": "$", "textpm": "±",
    "texttimes": "×", "textonehalf": "½", "lq": "‘", "rq": "’", "guillemotleft": "«", "guillemotright": "»", "og": "«",
    "fg": "»", "textexclamdown": "¡", "textquestiondown": "¿", "slash": "/", "textvisiblespace": "␣", "qed": "∎",
    "textsterling": "£", "textyen": "¥", "textsection": "§", "textparagraph": "¶", "ldblquote": "“", "today": "",
}  # fmt: skip
# Accent → combining character; NFC composes them.
ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307",
    "u": "\u0306", "v": "\u030c", "H": "\u030b", "c": "\u0327", "d": "\u0323", "b": "\u0331", "k": "\u0328",
    "r": "\u030a", "t": "\u0361",
}  # fmt: skip
# Statements of the algorithm packages → text before and after their argument.
STATEMENTS = {
    "State": ("\n", ""), "Statex": ("\n", ""), "If": ("\nif ", " then"), "ElsIf": ("\nelse if ", " then"),
    "Else": ("\nelse", ""), "EndIf": ("\nend if", ""), "For": ("\nfor ", " do"), "ForAll": ("\nfor all ", " do"),
    "EndFor": ("\nend for", ""), "While": ("\nwhile ", " do"), "EndWhile": ("\nend while", ""), "Repeat": ("\nrepeat",
    ""),
    "Until": ("\nuntil ", ""), "Loop": ("\nloop", ""), "EndLoop": ("\nend loop", ""), "Return": (" return ", ""),
    "Require": ("\nRequire: ", ""), "Ensure": ("\nEnsure: ", ""), "Comment": (" // ", ""),
    "Procedure": ("\nprocedure ", ""),
    "EndProcedure": ("\nend procedure", ""), "Function": ("\nfunction ", ""), "EndFunction": ("\nend function", ""),
    "Input": ("\nInput: ", ""), "Output": ("\nOutput: ", ""), "KwIn": ("\nInput: ", ""), "KwOut": ("\nOutput: ", ""),
    "KwData": ("\nData: ", ""), "KwResult": ("\nResult: ", ""), "KwRet": ("\nreturn ", ""), "Print": (" print ", ""),
}  # fmt: skip
STATEMENTS |= {name.upper(): texts for name, texts in STATEMENTS.items()} | {
    "ELSIF": STATEMENTS["ElsIf"], "ENDIF": STATEMENTS["EndIf"], "FORALL": STATEMENTS["ForAll"],
}  # fmt: skip
UNITS = {
    "meter": "m", "metre": "m", "second": "s", "gram": "g", "kilogram": "kg", "kelvin": "K", "ampere": "A",
    "mole": "mol",
    "hertz": "Hz", "newton": "N", "pascal": "Pa", "joule": "J", "watt": "W", "volt": "V", "ohm": "Ω", "tesla": "T",
    "electronvolt": "eV", "percent": "%", "degree": "°", "celsius": "°C", "degreeCelsius": "°C", "minute": "min",
    "hour": "h", "day": "d", "litre": "L", "liter": "L", "byte": "B", "bit": "bit", "angstrom": "Å", "bar": "bar",
    "kilo": "k", "mega": "M", "giga": "G", "tera": "T", "milli": "m", "micro": "μ", "nano": "n", "pico": "p",
    "centi": "c",
    "deci": "d", "hecto": "h", "per": "/", "squared": "²", "cubed": "³", "square": "", "cubic": "", "of": "",
    "km": "km",
    "cm": "cm", "mm": "mm", "nm": "nm", "kg": "kg", "ms": "ms", "GHz": "GHz", "MHz": "MHz", "kHz": "kHz", "eV": "eV",
    "GeV": "GeV", "MeV": "MeV", "TeV": "TeV", "keV": "keV", "K": "K", "radian": "rad", "decibel": "dB", "dB": "dB",
}  # fmt: skip
