"""What noise that is really noise is for: pictures between photographs, edits of them, and variations.

python examples/use_the_noise.py [steps]
"""

import sys
from pathlib import Path

import torch

import unsample as us
from unsample.pictures import sheet
from unsample.pictures.read import demo_photos

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50
model = us.load("tiny-imagenet-32-v")
images = us.load_images(demo_photos(), size=model.image_size)[-4:]

there = us.invert(model, images, steps=steps)
between = us.interpolate(model, there, frames=10)
Path("between.png").write_bytes(sheet(between.images, columns=10))
print(f"between.png: {between.nfe} network evaluations a picture; pictures {between.keys} are the photographs")

edits = [us.edit(model, there, to=name, guidance=4).images for name in ("lakeside", "volleyball", "ice cream")]
Path("edited.png").write_bytes(sheet(torch.cat([images, *edits]), columns=4))
print("edited.png: four photographs, and what each becomes as a lakeside, a volleyball, an ice cream")

varied = us.variations(model, images, seeds=5, steps=steps, start=us.ForwardNoise(fraction=0.3))
pictures = torch.cat([images[:, None], varied.nearest_first], dim=1)
Path("varied.png").write_bytes(sheet(pictures.flatten(0, 1), columns=6))
print(f"varied.png: four photographs, five variations of each from {varied.nfe} evaluations, nearest first")
