"""mPLUG-Owl2 (Ye et al. 2023, arXiv:2311.04257) for today's transformers.

A ViT looks at the photo, a visual abstractor sums it up in a few query tokens, and a LLaMA reads them among the words,
with norms and key/value projections of their own for each modality. Importing this package registers the model with
`AutoConfig`, `AutoModelForImageTextToText`, `AutoProcessor` and `AutoImageProcessor`; the published checkpoint's names
are the names of the parts, so a published folder opens with `from_pretrained`.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from neuronwise.architectures.mplug_owl2.config import MPLUGOwl2Config
from neuronwise.architectures.mplug_owl2.images import MPLUGOwl2ImageProcessor
from neuronwise.architectures.mplug_owl2.language import MPLUGOwl2ForConditionalGeneration
from neuronwise.architectures.mplug_owl2.processor import MPLUGOwl2Processor

__all__ = [
    "MPLUGOwl2Config",
    "MPLUGOwl2ForConditionalGeneration",
    "MPLUGOwl2ImageProcessor",
    "MPLUGOwl2Processor",
]

AutoConfig.register(MPLUGOwl2Config.model_type, MPLUGOwl2Config, exist_ok=True)
AutoModelForImageTextToText.register(MPLUGOwl2Config, MPLUGOwl2ForConditionalGeneration, exist_ok=True)
AutoProcessor.register(MPLUGOwl2Config, MPLUGOwl2Processor, exist_ok=True)
AutoImageProcessor.register(
    MPLUGOwl2Config,
    image_processor_classes={"pil": MPLUGOwl2ImageProcessor, "torchvision": MPLUGOwl2ImageProcessor},
    exist_ok=True,
)
