"""Pictures of a class from true noise, written as one sheet.

python examples/sample_classes.py [steps] [sheet.png]
"""

import sys
from pathlib import Path

import unsample as us
from unsample.pictures import sheet
from unsample.uses.sample import draw_noise

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50
place = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("lighthouses.png")
model = us.load("tiny-imagenet-32-v")
noise = draw_noise(model, 4, seed=0)
samples = us.sample(model, noise, steps=steps, condition="beacon", guidance=2.5)
place.write_bytes(sheet(samples.images))
print(f"{place}: {len(samples.images)} pictures, {samples.nfe} network evaluations each")
