"""The commands that find, decode and suppress neurons and list architectures: parse, call, print."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronwise.cli.app import DeviceOption, DtypeOption, JsonOption, ModelOption, app, load_model
from neuronwise.cli.edit import parse_settings
from neuronwise.cli.output import (
    print_finding,
    print_json,
    print_notes,
    print_table,
    progress_bar,
    status,
    stdout_kept,
    token_line,
)
from neuronwise.cli.photos import Source, find_over_photos
from neuronwise.errors import NeuronwiseError
from neuronwise.locate.methods import METHODS

if TYPE_CHECKING:
    from neuronwise.model import Model, Run


@app.command()
def find(
    image: Annotated[Path | None, typer.Argument(help="A photo; leave it out with --text.")] = None,
    text: Annotated[str | None, typer.Option(help="A text prompt instead of a photo, as it stands.")] = None,
    model: ModelOption = None,
    prompt: Annotated[
        str | None, typer.Option(help="What to ask about the photo; the model's own habit by default.")
    ] = None,
    concept: Annotated[
        list[str] | None, typer.Option(help="A word of the output; repeat for several. All nouns by default.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Any token, said or not, such as ' Paris'; repeat for several.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"How neurons are scored: {', '.join(METHODS)}. two_stage takes objects out of photos.",
            show_default="contribution; two_stage with --data, --mask or --box",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Neurons for each word.")] = 100,
    data: Annotated[
        Path | None, typer.Option(help="Find --concept over many photos: COCO's layout, or with a metadata.jsonl.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Where the concept is on the photo: a white on black image.")
    ] = None,
    box: Annotated[str | None, typer.Option(help="The same as a box in pixels: X,Y,WIDTH,HEIGHT.")] = None,
    inpainting: Annotated[
        str, typer.Option(help="telea, ns, lama:FILE.pt, diffusers:FOLDER, or folder:DIR of ready photos.")
    ] = "telea",
    dilation: Annotated[int, typer.Option(min=0, help="Pixels by which masks grow.")] = 5,
    photos: Annotated[int, typer.Option(min=1, help="Photos of a concept, at most, with --data.")] = 12,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the method, such as positions=image; repeat for several."),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="ffn (the input of W_down) or gate.", show_default="ffn")
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Exact shares of the logit.")] = False,
    contrast: Annotated[
        list[str] | None, typer.Option(help="Subtract the score for this token (or for the top N others: a number).")
    ] = None,
    position: Annotated[int | None, typer.Option(min=0, help="Where targets are scored: a generated token.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=0, help="50 for a photo, 0 for a text.", show_default=False)
    ] = None,
    chat: Annotated[
        bool | None, typer.Option("--chat/--no-chat", help="Apply the chat template.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a page to look at (index.html) and finding.json there.")
    ] = None,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    seed: Annotated[int, typer.Option(help="Every random choice hangs on it.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Find the neurons behind the words that a model says about a photo or many, or behind its answer to a text."""
    source = Source(image, data, mask, box, inpainting, dilation, photos)
    if source.wanted or (method is not None and METHODS[method].compares):
        if text is not None or target or not concept:
            raise NeuronwiseError("Over photos one finds what captions name: --concept WORD, no --text, no --target.")
        _require_writable(out)
        find_over_photos(
            source, lambda: load_model(model or "builtin", dtype, device_map), list(dict.fromkeys(concept)),
            _method_options(method or "", activation, normalize, contrast), settings, out, as_json,
            method=method or "two_stage", top=top, prompt=prompt, seed=seed,
            max_new_tokens=50 if max_new_tokens is None else max_new_tokens,
        )  # fmt: skip
        return
    method = method or "contribution"
    if not METHODS[method].scores_all:
        known = ", ".join(name for name, one in METHODS.items() if one.scores_all or one.compares)
        raise NeuronwiseError(f"--method {method} chooses among neurons that are found already; find takes {known}.")
    if (image is None) == (text is None):
        raise NeuronwiseError("Give either a photo or --text, not both and not neither.")
    _require_writable(out)
    options = {**_method_options(method, activation, normalize, contrast), **parse_settings(settings)}
    METHODS[method].check(options)
    from neuronwise.images import open_image

    if image is not None:
        open_image(image)  # a wrong file is said before a model is loaded
    with stdout_kept():
        from neuronwise.read import find as find_neurons

        loaded = load_model(
            ("builtin" if text is None else "builtin-text") if model is None else model, dtype, device_map
        )
        run = _run(loaded, image, text, prompt, max_new_tokens, chat, bool(concept), heat=out is not None)
        targets: list[str | int] = list(dict.fromkeys(target or ()))
        if text is not None and not concept and not targets:
            targets = [_answer(loaded, run)]
        _note_contrast(loaded, options)
        words = list(dict.fromkeys(concept or ())) or None
        found = find_neurons(
            loaded,
            run,
            words,
            targets,
            position=position,
            method=method,
            top=top,
            seed=seed,
            heat=out is not None,
            **options,
        )
        content = {**found.to_dict(), "command": shlex.join(["neuronwise", *sys.argv[1:]])}
        if out is not None:
            from neuronwise.report import write_finding

            write_finding(out, found, content)
    print_notes(content)
    if as_json:
        print_json(content)
    else:
        print_finding(content, out)


@app.command()
def decode(
    neurons: Annotated[list[str], typer.Argument(help="Neurons such as L23.U8083 or L4.E5.U80.")],
    model: ModelOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Tokens for each neuron.")] = 10,
    bottom: Annotated[bool, typer.Option("--bottom", help="The tokens it lowers most instead.")] = False,
    through_norm: Annotated[bool, typer.Option("--through-norm", help="Through the final norm's gain.")] = False,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the tokens that neurons write."""
    from neuronwise.neurons import as_neurons

    parsed = as_neurons(neurons)
    with stdout_kept():
        from neuronwise.read import decode_all

        loaded = load_model("builtin" if model is None else model, dtype, device_map)
        tokens = decode_all(loaded, parsed, k, bottom=bottom, through_norm=through_norm)
    if as_json:
        rows = [{**neuron.to_row(), "tokens": row} for neuron, row in zip(parsed, tokens, strict=True)]
        print_json({"schema": "neuronwise.decode/1", "model": loaded.name, "bottom": bottom, "neurons": rows})
    else:
        print_table(
            "", ["neuron", "tokens"], [[str(n), token_line(row)] for n, row in zip(parsed, tokens, strict=True)]
        )


@app.command()
def suppress(
    image: Annotated[Path, typer.Argument(help="A photo.")],
    concept: Annotated[str, typer.Option(help="A word of the output: the neurons behind it are silenced.")],
    model: ModelOption = None,
    prompt: Annotated[str | None, typer.Option(help="What to ask; the model's own habit by default.")] = None,
    method: Annotated[str, typer.Option(help="How neurons are scored, as for find.")] = "contribution",
    top: Annotated[int, typer.Option(min=1, help="Neurons to silence.")] = 50,
    normalize: Annotated[bool, typer.Option("--normalize", help="Exact shares of the logit.")] = False,
    contrast: Annotated[list[str] | None, typer.Option(help="As for find.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 50,
    chat: Annotated[bool | None, typer.Option("--chat/--no-chat", help="Apply the chat template.")] = None,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    seed: Annotated[int, typer.Option(help="The random controls hang on it.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show what the model says with a word's neurons silenced, beside two random controls of the same size."""
    from neuronwise.images import open_image

    open_image(image)
    with stdout_kept():
        from neuronwise.intervene import texts_without
        from neuronwise.locate import locate

        loaded = load_model("builtin" if model is None else model, dtype, device_map)
        run = _run(loaded, image, None, prompt, max_new_tokens, chat, True, False)
        options = _method_options(method, None, normalize, contrast)
        found = locate(loaded, run, concept, method=method, top=top, **options)
        sets = {
            "suppressed": found,
            "random": locate(loaded, run, concept, method="random", top=top, seed=seed),
            "random_same_layers": locate(
                loaded, run, concept, method="random_same_layers", top=top, among=found, seed=seed
            ),
        }
        with status("asking again without them"):
            texts = {"before": run.text, **texts_without(loaded, run, sets)}
    if as_json:
        neurons = {name: [str(neuron) for neuron in one.neurons] for name, one in sets.items()}
        content = {"schema": "neuronwise.suppress/1", **dict(found.record), "top": top, "seed": seed}
        print_json({**content, "texts": texts, "neurons": neurons})
    else:
        print_table("", ["neurons silenced", "text"], [[name, text] for name, text in texts.items()])


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="A model type such as llama; all by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the architectures of the installed transformers, and how their neurons are addressed."""
    with stdout_kept():
        from neuronwise.architectures.survey import survey

        with progress_bar("building architectures") as progress:
            rows = survey(name, progress)
    if as_json:
        import transformers

        content = {"schema": "neuronwise.models/1", "transformers": transformers.__version__}
        print_json({**content, "architectures": [row.to_dict() for row in rows]})
        return
    print_table(
        "",
        ["architecture", "kind", "neurons in", "d", "L"],
        [
            [
                row.name,
                row.kind,
                f"{row.decoder}: {'; '.join(map(str, row.writers))}"
                if row.addressable
                else f"{row.status}: {row.reason}",
                str(row.hidden_size or ""),
                str(row.layers or ""),
            ]
            for row in rows
        ],
    )


def _run(
    model: Model,
    image: Path | None,
    text: str | None,
    prompt: str | None,
    length: int | None,
    chat: bool | None,
    said: bool,
    heat: bool,
) -> Run:
    if text is not None:
        if prompt is not None:
            raise NeuronwiseError("--text is the whole prompt; --prompt goes with a photo.")
        length = (20 if said else 0) if length is None else length
        with status("reading the text"):
            return model.run(prompt=text, max_new_tokens=length, chat=bool(chat))
    with status("looking at the photo"):
        length = 50 if length is None else length
        return model.run(image=image, prompt=prompt, max_new_tokens=length, chat=chat, heat=heat)


def _answer(model: Model, run: Run) -> int:
    """The token that the model itself says first."""
    if run.output_ids:
        return run.output_ids[0]
    import torch

    with torch.no_grad():
        return int(model.forward(run.forced_inputs(), rows=[-1])[0, -1].argmax())


def _method_options(method: str, activation: str | None, normalize: bool, contrast: list[str] | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if activation is not None:
        options["activation"] = activation
    if normalize:
        options["normalize"] = True
    if contrast:
        options["contrast"] = _contrast(contrast)
    return options


def _contrast(given: list[str]) -> int | list[str]:
    """A number of alternatives, or words; what looks like a number is one."""
    numbers = [word for word in given if re.fullmatch(r"\s*[-+]?\d+(\.\d*)?\s*", word)]
    if not numbers:
        return given
    if len(given) > 1 or not numbers[0].strip().isdigit() or int(numbers[0]) < 1:
        raise NeuronwiseError(f"--contrast takes words, or one whole number from 1; not {', '.join(given)}.")
    return int(numbers[0])


def _note_contrast(model: Model, options: dict[str, Any]) -> None:
    from neuronwise.model.prompt import exact_tokens

    words = options.get("contrast")
    for word in words if isinstance(words, list) else ():
        if word.strip() and (note := exact_tokens(model.tokenizer, model.vocabulary_size, word).note):
            print(f"neuronwise: {note.replace('The target', 'The contrast')}", file=sys.stderr)


def _require_writable(out: Path | None) -> None:
    if out is None:
        return
    if out.exists() and not out.is_dir():
        raise NeuronwiseError(f"'{out}' is a file; --out names a folder.")
    parent = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not os.access(parent, os.W_OK):
        raise NeuronwiseError(f"The folder '{parent}' cannot be written to.")
