from neuronwise.images.inpaint.inpainter import Inpainter as Inpainter
from neuronwise.images.inpaint.table import INPAINTERS as INPAINTERS
from neuronwise.images.inpaint.table import Inpainting as Inpainting
