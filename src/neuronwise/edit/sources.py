"""Where the hyper-parameters of each preset were published: the file, in the repository of the paper or of EasyEdit.

ROME is github.com/kmeng01/rome, MEMIT github.com/kmeng01/memit, PMET github.com/xpq-tech/PMET, AlphaEdit
github.com/jianghoucheng/AlphaEdit, FiNE github.com/opanhw/FiNE, EasyEdit github.com/zjunlp/EasyEdit.
``python -m neuronwise.edit.sources`` prints the tables of ``docs/presets.md``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

OURS = "our choice"

SOURCES: dict[str, dict[str, str]] = {
    "fine": {
        "gptj": "FiNE hparams/FINE/gptj-6b.yaml",
        "llama-2": "FiNE hparams/FINE/llama2-7b.yaml",
        "llama-3": "FiNE hparams/FINE/llama3-8b.yaml",
        "small": f"{OURS}: the higher of the published rates",
        "default": f"{OURS}: the rate of the youngest published family",
    },
    "fine_specific": {"default": f"{OURS}, on the built-in text model alone"},
    "fine_tune": {
        "gpt2-medium": "ROME hparams/FT/gpt2-medium_constr.json",
        "gpt2-large": "ROME hparams/FT/gpt2-large_constr.json",
        "gpt2-xl": "ROME hparams/FT/gpt2-xl_constr.json",
        "gptj": "EasyEdit hparams/FT/gpt-j-6B.yaml",
        "llama-2": "EasyEdit hparams/FT/llama-7b.yaml",
        "llama-3": "AlphaEdit hparams/FT/Llama3-8B.json",
        "llama-3.2-3b": "EasyEdit hparams/FT/llama3.2-3b.yaml",
        "mistral": "EasyEdit hparams/FT/mistral-7b.yaml",
        "qwen": "EasyEdit hparams/FT/qwen-7b.yaml",
        "qwen2": "EasyEdit hparams/FT/qwen2-7b.yaml, qwen2.5-7b.yaml",
        "small": f"{OURS}: the constraint of the smallest published family",
        "default": f"{OURS}: the constraint published for Mistral",
    },
    "knowledge_neurons": {
        "gpt2-xl": "ROME hparams/KN/gpt2-xl.json",
        "gptj": "EasyEdit hparams/KN/gpt-j-6B.yaml",
        "default": "Dai et al. 2022, for BERT",
    },
    "rome": {
        "gpt2-medium": "ROME hparams/ROME/gpt2-medium.json",
        "gpt2-large": "ROME hparams/ROME/gpt2-large.json",
        "gpt2-xl": "ROME hparams/ROME/gpt2-xl.json",
        "gptj": "ROME hparams/ROME/EleutherAI_gpt-j-6B.json",
        "gpt_neox": "MEMIT hparams/ROME/EleutherAI_gpt-neox-20b.json",
        "llama-2": "EasyEdit hparams/ROME/llama-7b.yaml",
        "llama-3": "AlphaEdit hparams/ROME/Llama3-8B.json",
        "llama-3.2-3b": "EasyEdit hparams/ROME/llama3.2-3b.yaml",
        "mistral": "EasyEdit hparams/ROME/mistral-7b.yaml",
        "qwen": "EasyEdit hparams/ROME/qwen-7b.yaml",
        "qwen2": "EasyEdit hparams/ROME/qwen2-7b.yaml, qwen2.5-7b.yaml",
        "qwen3_5": "EasyEdit hparams/ROME/qwen3.5-9b.yaml",
        "glm": "EasyEdit hparams/ROME/chatglm4-9b.yaml",
        "small": f"{OURS}: as LLaMA's, with five prefixes in place of twenty",
        "default": f"{OURS}: as LLaMA's",
    },
    "memit": {
        "gpt2-xl": "MEMIT hparams/MEMIT/gpt2-xl.json",
        "gptj": "MEMIT hparams/MEMIT/EleutherAI_gpt-j-6B.json",
        "gpt_neox": "PMET edit/hparams/MEMIT/EleutherAI_gpt-neox-20b.json",
        "llama-2": "EasyEdit hparams/MEMIT/llama-7b.yaml",
        "llama-3": "AlphaEdit hparams/MEMIT/Llama3-8B.json",
        "llama-3.2-3b": "EasyEdit hparams/MEMIT/llama3.2-3b.yaml",
        "mistral": "EasyEdit hparams/MEMIT/mistral-7b.yaml",
        "qwen": "EasyEdit hparams/MEMIT/qwen-7b.yaml",
        "qwen2": "EasyEdit hparams/MEMIT/qwen2-7b.yaml, qwen2.5-7b.yaml",
        "small": f"{OURS}: as LLaMA's",
        "default": f"{OURS}: as LLaMA's",
    },
    "pmet": {
        "gptj": "PMET edit/hparams/PMET/EleutherAI_gpt-j-6B.json",
        "gpt_neox": "PMET edit/hparams/PMET/EleutherAI_gpt-neox-20b.json",
        "llama-2": "EasyEdit hparams/PMET/llama-7b.yaml",
        "llama-3.2-3b": "EasyEdit hparams/PMET/llama3.2-3b.yaml",
        "small": f"{OURS}: as GPT-J's",
        "default": f"{OURS}: as GPT-J's",
    },
    "alphaedit": {
        "gpt2-xl": "AlphaEdit hparams/AlphaEdit/gpt2-xl.json",
        "gptj": "AlphaEdit hparams/AlphaEdit/EleutherAI_gpt-j-6B.json",
        "llama-3": "AlphaEdit hparams/AlphaEdit/Llama3-8B.json",
        "qwen2": "EasyEdit hparams/AlphaEdit/qwen2.5-7b.yaml",
        "qwen3_5": "EasyEdit hparams/AlphaEdit/qwen3.5-9b.yaml",
        "small": f"{OURS}: LLaMA's of MEMIT",
        "default": f"{OURS}: LLaMA's of MEMIT",
    },
    "swap": {"default": OURS},
    "suppress": {"default": OURS},
}

# Which layers are taken where a preset names none.
BY_RULE = {
    "fine": "where neurons are found",
    "fine_specific": "at 4/15 of the depth",
    "fine_tune": "at 2/3 of the depth",
    "knowledge_neurons": "where neurons are found",
    "rome": "at 1/6 of the depth",
    "memit": "from 1/8 to 1/4 of the depth",
    "pmet": "from 1/8 to 1/4 of the depth",
    "alphaedit": "from 1/8 to 1/4 of the depth",
}


def changed(settings: Any, default: Any) -> dict[str, Any]:
    """The settings that are other than by default, layers left out."""
    given, usual = asdict(settings), asdict(default)
    return {name: value for name, value in given.items() if value != usual[name] and name not in ("layer", "layers")}


def span(editor: str, settings: Any) -> str:
    """ "4–8" for a range of layers, "5" for one, the editor's rule where none is named."""
    given = asdict(settings)
    layers = given["layers"] if given.get("layers") is not None else given.get("layer")
    if layers is None:
        return BY_RULE[editor]
    if isinstance(layers, int):
        return str(layers)
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}–{layers[-1]}"


def tables() -> str:
    """A table of each editor's presets, in Markdown."""
    from neuronwise.edit.editors import EDITORS
    from neuronwise.edit.presets import DEPTHS

    lines = []
    for name, editor in EDITORS.items():
        default = editor.presets["default"]
        usual = ", ".join(f"{key}={value}" for key, value in asdict(default).items() if not isinstance(value, tuple))
        lines += [f"### {name}", "", f"By default: {usual}.", "", "| preset | layers | other than by default | from |"]
        lines += ["|---|---|---|---|"]
        for family, settings in sorted(editor.presets.items(), key=lambda item: (item[0] == "default", item[0])):
            layers = span(name, settings)
            layers += f" of {DEPTHS[family]}" if layers[0].isdigit() else ""
            others = ", ".join(f"{key}={value}" for key, value in changed(settings, default).items()) or "–"
            lines.append(f"| {family} | {layers} | {others} | {SOURCES[name][family]} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    sys.stdout.write(tables())
