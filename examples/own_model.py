"""Any function that predicts noise is a model. Here: the exact one of Gaussian data, by hand.

python examples/own_model.py [steps]
"""

import sys

import torch

import unsample as us

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50
schedule = us.Schedule.from_betas(us.Schedule.linear_betas())
alpha_bar = torch.tensor(schedule.alpha_bar)
variance = 0.01  # of the data: a plain area


def network(x: torch.Tensor, t: torch.Tensor, condition: None) -> torch.Tensor:
    a = alpha_bar[t].reshape(-1, 1, 1, 1)
    return (1 - a).sqrt() * x / (a * variance + 1 - a)


model = us.Model(network, schedule, shape=(1, 8, 8), name="by hand")
images = 0.1 * us.ItemNoise(0, range(256)).draw((256, 1, 8, 8), stream="data", dtype=torch.float64)
for start in (us.FromImage(), us.ForwardNoise(steps=1), us.ForwardNoise(steps=2)):
    latent = us.invert(model, images, steps=steps, start=start).latent
    print(f"{start}: the latent has standard deviation {latent.std():.3f}, noise has 1")
