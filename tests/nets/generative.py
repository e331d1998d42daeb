"""Generators, discriminators, autoencoders and flows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm

from nets.catalogue import UserNet, nets


class Generator(nn.Module):
    """Transposed convolutions from a vector."""

    def __init__(self, nz: int = 16, ngf: int = 16) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *(nn.ConvTranspose2d(nz, ngf * 4, 4, 1, 0, bias=False), nn.BatchNorm2d(ngf * 4), nn.ReLU(True)),
            *(nn.ConvTranspose2d(ngf * 4, ngf * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(ngf * 2), nn.ReLU(True)),
            *(nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=False), nn.BatchNorm2d(ngf), nn.ReLU(True)),
            *(nn.ConvTranspose2d(ngf, 3, 4, 2, 1, bias=False), nn.Tanh()),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z)


class FirstLinear(nn.Module):
    """A linear layer whose result is viewed as a map of literal size."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 48 * 4 * 4)
        self.c1, self.c2 = nn.Conv2d(48, 32, 3, 1, 1), nn.Conv2d(32, 3, 3, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.leaky_relu(self.fc(z).view(-1, 48, 4, 4), 0.2)
        x = F.leaky_relu(self.c1(F.interpolate(x, scale_factor=2)), 0.2)
        return torch.tanh(self.c2(F.interpolate(x, scale_factor=2)))


class Discriminator(nn.Module):
    """Strided convolutions, and one number for each picture."""

    def __init__(self, ndf: int = 16) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *(nn.Conv2d(3, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)),
            *(nn.Conv2d(ndf, ndf * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(ndf * 2), nn.LeakyReLU(0.2, inplace=True)),
            *(nn.Conv2d(ndf * 2, ndf * 4, 4, 2, 1, bias=False), nn.BatchNorm2d(ndf * 4), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(ndf * 4, 1, 2, 1, 0, bias=False), nn.Sigmoid()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x).view(-1, 1).squeeze(1)


class MinibatchDeviation(nn.Module):
    """Appends the mean deviation over the batch as one more channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 24, 3, 1, 1), nn.Conv2d(24, 32, 3, 2, 1)
        self.c, self.fc = nn.Conv2d(33, 32, 3, 1, 1), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.b(F.leaky_relu(self.a(x), 0.2)), 0.2)
        std = torch.sqrt(x.var(0, unbiased=False) + 1e-8).mean().expand(x.size(0), 1, x.size(2), x.size(3))
        x = F.leaky_relu(self.c(torch.cat([x, std], 1)), 0.2)
        return self.fc(x.sum((2, 3)))


class PixelNorm(nn.Module):
    """Each place's channels have length one on average."""

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


class Equalized(nn.Module):
    """A convolution whose weight is scaled at run time by a number that its constructor computes."""

    def __init__(self, i: int, o: int, k: int = 3) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(o, i, k, k)), nn.Parameter(torch.zeros(o))
        self.scale = math.sqrt(2 / (i * k * k))
        self.padding = k // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class EqualizedByShape(Equalized):
    """The same, but the number is computed from the weight's shape in the forward."""

    def forward(self, x: Tensor) -> Tensor:
        scale = math.sqrt(2 / self.weight[0].numel())
        return F.conv2d(x, self.weight * scale, self.bias, padding=self.padding)


def progressive() -> nn.Module:
    """Equalized layers with pixel norms."""
    return nn.Sequential(
        *(Equalized(3, 24), nn.LeakyReLU(0.2), PixelNorm(), Equalized(24, 32), nn.LeakyReLU(0.2), PixelNorm()),
        *(nn.Upsample(scale_factor=2), Equalized(32, 32), nn.LeakyReLU(0.2), PixelNorm(), Equalized(32, 3, 1)),
    )


def equalized_by_shape() -> nn.Module:
    """Layers that compute their scale from what they hold."""
    return nn.Sequential(
        *(EqualizedByShape(3, 24), nn.LeakyReLU(0.2), EqualizedByShape(24, 32), nn.LeakyReLU(0.2)),
        *(EqualizedByShape(32, 32), nn.LeakyReLU(0.2), EqualizedByShape(32, 3, 1)),
    )


def spectral_critic() -> nn.Module:
    """Spectral norm by parametrization."""
    sn = parametrizations.spectral_norm
    return nn.Sequential(
        *(sn(nn.Conv2d(3, 24, 3, 2, 1)), nn.LeakyReLU(0.1), sn(nn.Conv2d(24, 32, 3, 1, 1)), nn.LeakyReLU(0.1)),
        *(sn(nn.Conv2d(32, 32, 3, 2, 1)), nn.LeakyReLU(0.1), nn.Flatten(), sn(nn.Linear(32 * 9, 1))),
    )


def spectral_critic_by_hooks() -> nn.Module:
    """Spectral norm by the older hooks."""
    return nn.Sequential(
        *(spectral_norm(nn.Conv2d(3, 24, 3, 2, 1)), nn.ReLU(), spectral_norm(nn.Conv2d(24, 32, 3, 1, 1)), nn.ReLU()),
        *(spectral_norm(nn.Conv2d(32, 32, 3, 2, 1)), nn.ReLU(), nn.Flatten(), spectral_norm(nn.Linear(32 * 9, 1))),
    )


class Modulated(nn.Module):
    """A convolution whose inputs are scaled per sample, its outputs divided by their length, as one grouped call."""

    def __init__(self, i: int, o: int, style: int) -> None:
        super().__init__()
        self.out = o
        self.weight = nn.Parameter(torch.randn(1, o, i, 3, 3) / (3 * i**0.5))
        self.modulation = nn.Linear(style, i)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        b, c, h, w = x.shape
        weight = self.weight * self.modulation(style).view(b, 1, c, 1, 1)
        weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
        x = F.conv2d(x.reshape(1, b * c, h, w), weight.view(b * self.out, c, 3, 3), padding=1, groups=b)
        return x.view(b, self.out, h, w)


class StyleLike(nn.Module):
    """A mapping net, a learnt constant, modulated convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2))
        self.start = nn.Parameter(torch.randn(1, 24, 4, 4))
        self.m1, self.m2 = Modulated(24, 32, 32), Modulated(32, 32, 32)
        self.rgb = nn.Conv2d(32, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        style = self.mapping(z)
        x = F.leaky_relu(self.m1(self.start.repeat(len(z), 1, 1, 1), style), 0.2)
        return self.rgb(F.leaky_relu(self.m2(F.interpolate(x, scale_factor=2), style), 0.2))


class AdaptiveInstance(nn.Module):
    """Scale and shift of an instance norm from a style vector, by chunks."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.stem, self.c1, self.c2 = nn.Conv2d(3, c, 3, 1, 1), nn.Conv2d(c, c, 3, 1, 1), nn.Conv2d(c, 3, 3, 1, 1)
        self.norm, self.fc = nn.InstanceNorm2d(c), nn.Linear(8, 2 * c)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = self.c1(F.relu(self.stem(x)))
        gamma, beta = self.fc(style)[:, :, None, None].chunk(2, 1)
        return self.c2(F.relu(self.norm(x) * (1 + gamma) + beta))


class Film(nn.Module):
    """A diffusion-like net: sinusoidal time of stored width, scale and shift in every block."""

    def __init__(self, c: int = 32, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.time = nn.Sequential(nn.Linear(dim, 48), nn.SiLU(), nn.Linear(48, 48))
        self.stem, self.out = nn.Conv2d(3, c, 3, 1, 1), nn.Conv2d(c, 3, 3, 1, 1)
        self.norms = nn.ModuleList(nn.GroupNorm(8, c) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(c, c, 3, 1, 1) for _ in range(2))
        self.film = nn.ModuleList(nn.Linear(48, 2 * c) for _ in range(2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.dim // 2
        freqs = torch.exp(-math.log(1e4) * torch.arange(half, dtype=t.dtype) / half)
        angles = t[:, None] * freqs[None]
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        x = self.stem(x)
        for norm, conv, film in zip(self.norms, self.convs, self.film, strict=True):
            scale, shift = film(F.silu(time))[..., None, None].chunk(2, dim=1)
            x = x + conv(F.silu(norm(x) * (1 + scale) + shift))
        return self.out(x)


class Autoencoder(nn.Module):
    """Convolutions down, transposed ones up, nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 4))
        )
        self.decoder = nn.Sequential(
            *(nn.ConvTranspose2d(32, 32, 4), nn.ReLU(), nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1)),
            *(nn.ReLU(), nn.ConvTranspose2d(16, 1, 3, 2, 1, output_padding=1), nn.Sigmoid()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class Variational(nn.Module):
    """Mean and log-variance of a stored latent width; picture, mean and log-variance come back."""

    def __init__(self, latent: int = 8) -> None:
        super().__init__()
        self.latent = latent
        self.enc = nn.Sequential(nn.Conv2d(1, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 2, 1), nn.ReLU())
        self.mu, self.logvar = nn.Linear(32 * 16, latent), nn.Linear(32 * 16, latent)
        self.up = nn.Linear(latent, 32 * 16)
        self.dec = nn.Sequential(
            *(nn.ConvTranspose2d(32, 24, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(24, 1, 4, 2, 1), nn.Sigmoid())
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.enc(x).flatten(1)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu) if self.training else mu
        return self.dec(F.relu(self.up(z)).view(-1, 32, 4, 4)), mu, logvar


class Quantizing(nn.Module):
    """A codebook: the nearest entry replaces each place's features, straight-through."""

    def __init__(self, codes: int = 12, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.enc = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU())
        self.pre, self.codebook = nn.Conv2d(32, dim, 1), nn.Embedding(codes, dim)
        self.dec = nn.Sequential(nn.Conv2d(dim, 32, 3, 1, 1), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        z = self.pre(self.enc(x)).permute(0, 2, 3, 1).contiguous()
        flat = z.view(-1, self.dim)
        nearest = torch.cdist(flat, self.codebook.weight).argmin(1)
        q = self.codebook(nearest).view(z.shape)
        return self.dec((z + (q - z).detach()).permute(0, 3, 1, 2))


class Coupling(nn.Module):
    """An affine coupling of a normalizing flow: half of the features scale and shift the rest."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(dim // 2, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, dim))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for net in self.nets:
            a, b = x.chunk(2, -1)
            scale, shift = net(a).chunk(2, -1)
            scale = torch.tanh(scale)
            x = torch.cat([b * scale.exp() + shift, a], -1)
            log_det = log_det + scale.sum(-1)
        return x, log_det


SHAPE = (2, 3, 12, 12)
NETS: tuple[UserNet, ...] = nets(
    "generative",
    (Generator, (2, 16, 1, 1)),
    (FirstLinear, (2, 16), "literal view"),
    (Discriminator, (2, 3, 16, 16), "one dimension"),
    (MinibatchDeviation, (3, 3, 12, 12), "over channels"),
    (progressive, SHAPE, "over channels", "computed weight"),
    (equalized_by_shape, SHAPE, "computed weight", "width number", "double"),
    (spectral_critic, SHAPE, "computed weight"),
    (spectral_critic_by_hooks, SHAPE, "computed weight"),
    (StyleLike, (2, 16), "computed weight"),
    (AdaptiveInstance, (SHAPE, (2, 8)), "two inputs"),
    (Film, (SHAPE, (2,)), "two inputs"),
    (Autoencoder, (2, 1, 16, 16)),
    (Variational, (2, 1, 16, 16), "literal view"),
    (Quantizing, SHAPE),
    (Coupling, (2, 8)),
)
