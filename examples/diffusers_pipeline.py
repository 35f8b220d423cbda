"""A pipeline of diffusers and a photograph's file: to noise, back, and from there to another class.

The bundled weights stand in for yours; with Stable Diffusion, prompts take the place of classes.

python examples/diffusers_pipeline.py [steps]
"""

import sys

from diffusers import DDPMPipeline

import unsample as us
from unsample.pictures.read import demo_photos

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50
pipe = DDPMPipeline.from_pretrained(us.models.cards()["tiny-imagenet-32-v"].path)
photo = demo_photos()[0]

there = us.invert(pipe, photo, condition=0, steps=steps)
for label in (0, 100):
    images = us.sample(pipe, there, condition=label).images
    us.pictures.read.save_png(images[0], f"class-{label}.png")
    print(f"class-{label}.png: {there.nfe} network evaluations up, {steps} down")
