"""The one loop is a generator: look at every move as it is made, keep nothing.

python examples/watch_walk.py [steps]
"""

import sys

import unsample as us
from unsample.pictures.read import demo_photos

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
model = us.load("tiny-imagenet-32-v")
x0 = us.load_images(demo_photos(), size=model.image_size)
for moved in us.walk(model.denoiser(), x0, model.grid(steps).up(), us.DDIM()):
    level = moved.step.dst
    print(f"level {level.index:3d}  t {level.t:4.0f}  sigma/alpha {level.ratio:8.3f}  std of the state {moved.x.std():.3f}")
