"""The first steps are to blame: give the inversion the true predictions of its first k moves (the paper's swap, E9).

python examples/swap_predictions.py [steps]
"""

import sys

import unsample as us
from unsample.uses.sample import draw_noise

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50
model = us.load("tiny-imagenet-32-v")
grid = model.grid(steps)
noise = draw_noise(model, 8)

recorded = us.Recorded(model.denoiser())
*_, last = us.walk(recorded, noise, grid.down(), us.DDIM())
for k in (0, 1, 2, 5):
    true = {index: eps for index, eps in recorded.eps.items() if index <= k}
    *_, up = us.walk(us.Replayed(true, otherwise=model.denoiser()), last.x, grid.up(), us.DDIM())
    print(f"first {k} of {steps} predictions true: mean |latent - noise| = {(up.x - noise).abs().mean():.4f}")
