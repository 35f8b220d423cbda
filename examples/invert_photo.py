"""A photograph to noise and back, with and without the forward start.

python examples/invert_photo.py [steps]
"""

import sys

import unsample as us
from unsample.pictures.read import demo_photos

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50
model = us.load("tiny-imagenet-32-v")
images = us.load_images(demo_photos(), size=model.image_size)

ways = ((us.DDIM(), us.FromImage()), (us.DDIM(), us.ForwardNoise(steps=2)), (us.LookAhead(), us.ForwardNoise(steps=1)))
for method, start in ways:
    result = us.reconstruct(model, images, steps=steps, method=method, start=start)
    print(f"\n{method}, {start}: {result.nfe} network evaluations")
    print(us.diagnose(result.trajectory.latent, images=images, reconstruction=result.images.clamp(-1, 1)))
