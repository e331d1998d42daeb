"""Sound, series and video: one and three dimensions, gates over time, recurrence."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.catalogue import UserNet, nets


class TimeDelay(nn.Module):
    """Dilated convolutions over frames, mean and deviation pooled, an embedding."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o, k, d in ((12, 32, 5, 1), (32, 32, 3, 2), (32, 48, 1, 1)):
            layers += [nn.Conv1d(i, o, k, dilation=d), nn.ReLU(), nn.BatchNorm1d(o)]
        self.frames = nn.Sequential(*layers)
        self.segment1, self.segment2, self.out = nn.Linear(96, 32), nn.Linear(32, 32), nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.frames(x)
        x = torch.cat((x.mean(2), x.std(2)), 1)
        return self.out(F.relu(self.segment2(F.relu(self.segment1(x)))))


class GatedDilated(nn.Module):
    """Gated causal convolutions with skips, as in nets that write sound sample by sample."""

    def __init__(self, residual: int = 24, skip: int = 32) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, residual, 1)
        self.filters = nn.ModuleList(nn.Conv1d(residual, residual, 2, dilation=2**n) for n in range(3))
        self.gates = nn.ModuleList(nn.Conv1d(residual, residual, 2, dilation=2**n) for n in range(3))
        self.res = nn.ModuleList(nn.Conv1d(residual, residual, 1) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(residual, skip, 1) for _ in range(3))
        self.end1, self.end2 = nn.Conv1d(skip, skip, 1), nn.Conv1d(skip, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.start(x), 0
        for filt, gate, res, skip in zip(self.filters, self.gates, self.res, self.skips, strict=True):
            y = torch.tanh(filt(x)) * torch.sigmoid(gate(x))
            s = skip(y)
            total = s if isinstance(total, int) else total[:, :, -s.size(2) :] + s
            x = res(y) + x[:, :, -y.size(2) :]
        return self.end2(F.relu(self.end1(F.relu(total))))


class TemporalBlocks(nn.Module):
    """Causal blocks with weight norm by parametrization and chopped padding."""

    def __init__(self) -> None:
        super().__init__()
        wn = nn.utils.parametrizations.weight_norm
        self.convs = nn.ModuleList(
            wn(nn.Conv1d(i, 24, 3, padding=2 * d, dilation=d)) for i, d in ((4, 1), (24, 2), (24, 4))
        )
        self.down, self.out = nn.Conv1d(4, 24, 1), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        for n, conv in enumerate(self.convs):
            y = F.relu(conv(x)[:, :, : x.size(2)].contiguous())
            x = F.relu(y + (self.down(x) if n == 0 else x))
        return self.out(x[:, :, -1])


class SpeechGru(nn.Module):
    """Spectrogram convolutions, frames of channels times frequencies, a recurrent net, a head for each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            *(nn.Conv2d(1, 24, 3, (2, 1), 1), nn.BatchNorm2d(24), nn.Hardtanh(0, 20)),
            *(nn.Conv2d(24, 32, 3, (2, 1), 1), nn.BatchNorm2d(32), nn.Hardtanh(0, 20)),
            *(nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.Hardtanh(0, 20)),
        )
        self.rnn, self.fc = nn.GRU(32 * 4, 12, batch_first=True), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cnn(x)
        b, c, f, t = x.size()
        x, _ = self.rnn(x.view(b, c * f, t).transpose(1, 2))
        return self.fc(x)


class ConvLstm1d(nn.Module):
    """Convolutions, then the last state of two recurrent layers, then attention over frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(6, 32, 5, 1, 2), nn.ReLU(), nn.Conv1d(32, 48, 5, 2, 2), nn.ReLU())
        self.more = nn.Sequential(nn.Conv1d(48, 48, 3, 1, 1), nn.ReLU(), nn.MaxPool1d(2))
        self.lstm, self.score, self.fc = nn.LSTM(48, 16, 2, batch_first=True), nn.Linear(16, 1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, (h, _) = self.lstm(self.more(self.conv(x)).permute(0, 2, 1))
        weight = self.score(y).softmax(1)
        return self.fc(torch.cat([(weight * y).sum(1), h[-1]], 1))


class CellLoop(nn.Module):
    """A recurrent cell called in a loop over frames of convolutional features."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = hidden
        self.cnn = nn.Sequential(nn.Conv2d(1, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 2, 1), nn.ReLU())
        self.more, self.cell, self.out = nn.Conv2d(32, 32, 3, 1, 1), nn.GRUCell(32, hidden), nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.size(0), self.hidden)
        for t in range(x.size(1)):
            state = self.cell(F.relu(self.more(self.cnn(x[:, t]))).mean((2, 3)), state)
        return self.out(state)


class Spectral(nn.Module):
    """Works on the spectrum of its features over time."""

    def __init__(self, c: int = 32) -> None:
        super().__init__()
        self.stem, self.mix, self.out = nn.Conv1d(2, c, 3, 1, 1), nn.Conv1d(2 * c, 2 * c, 1), nn.Conv1d(c, 2, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        f = torch.fft.rfft(x, dim=-1, norm="ortho")
        y = F.relu(self.mix(torch.cat([f.real, f.imag], 1)))
        real, imag = y.chunk(2, 1)
        return self.out(x + torch.fft.irfft(torch.complex(real, imag), n=x.shape[-1], dim=-1, norm="ortho"))


class Separator(nn.Module):
    """Encoder, masks for two speakers by view and softmax, shared decoder."""

    def __init__(self, n: int = 24, speakers: int = 2) -> None:
        super().__init__()
        self.n, self.c = n, speakers
        self.encoder, self.decoder = nn.Conv1d(1, n, 8, 4, bias=False), nn.ConvTranspose1d(n, 1, 8, 4, bias=False)
        self.body = nn.Sequential(
            *(nn.GroupNorm(1, n), nn.Conv1d(n, 32, 1), nn.PReLU(), nn.Conv1d(32, 32, 3, 1, 1, groups=32)),
            *(nn.PReLU(), nn.GroupNorm(1, 32), nn.Conv1d(32, speakers * n, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        w = F.relu(self.encoder(x))
        b, _, t = w.shape
        masks = self.body(w).view(b, self.c, self.n, t).softmax(1)
        sources = (w.unsqueeze(1) * masks).view(b * self.c, self.n, t)
        return self.decoder(sources).view(b, self.c, -1)


class Raw(nn.Module):
    """A classifier of raw sound with strided convolutions and squeezes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(1, 24, 16, 4), nn.BatchNorm1d(24)
        self.conv2, self.bn2 = nn.Conv1d(24, 32, 3), nn.BatchNorm1d(32)
        self.conv3, self.bn3, self.fc = nn.Conv1d(32, 48, 3), nn.BatchNorm1d(48), nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool1d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.avg_pool1d(x, x.shape[-1]).permute(0, 2, 1)
        return F.log_softmax(self.fc(x), dim=2)


class Cube(nn.Module):
    """Three-dimensional convolutions and pools, a literal view."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = nn.Conv3d(3, 16, 3, 1, 1), nn.Conv3d(16, 24, 3, 1, 1), nn.Conv3d(24, 32, 3, 1, 1)
        self.p1, self.p2 = nn.MaxPool3d((1, 2, 2)), nn.MaxPool3d(2)
        self.fc1, self.fc2 = nn.Linear(32 * 2 * 2 * 2, 48), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.p2(F.relu(self.c2(self.p1(F.relu(self.c1(x))))))
        x = F.adaptive_avg_pool3d(F.relu(self.c3(x)), 2).view(-1, 256)
        return self.fc2(F.relu(self.fc1(x)))


class Factored(nn.Module):
    """Space, then time: (2+1)D blocks with shortcuts."""

    def __init__(self, c: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, c, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.space = nn.ModuleList(nn.Conv3d(c, 40, (1, 3, 3), padding=(0, 1, 1), bias=False) for _ in range(2))
        self.norm = nn.ModuleList(nn.BatchNorm3d(40) for _ in range(2))
        self.time = nn.ModuleList(nn.Conv3d(40, c, (3, 1, 1), padding=(1, 0, 0), bias=False) for _ in range(2))
        self.fc = nn.Linear(c, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for space, norm, time in zip(self.space, self.norm, self.time, strict=True):
            x = x + time(F.relu(norm(space(x))))
        return self.fc(F.adaptive_avg_pool3d(F.relu(x), 1).flatten(1))


class ShiftedFrames(nn.Module):
    """Frames as a batch; an eighth of the channels comes from the next frame, an eighth from the last."""

    def __init__(self, frames: int = 4, fold: int = 8) -> None:
        super().__init__()
        self.frames, self.fold_div = frames, fold
        self.stem, self.c1, self.c2 = nn.Conv2d(3, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1)
        self.fc = nn.Linear(32, 5)

    def shift(self, x: Tensor) -> Tensor:
        nt, c, h, w = x.size()
        x = x.view(nt // self.frames, self.frames, c, h, w)
        fold = c // self.fold_div
        out = torch.zeros_like(x)
        out[:, :-1, :fold] = x[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
        return out.view(nt, c, h, w)

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        x = F.relu(self.stem(x.flatten(0, 1)))
        x = x + self.c2(F.relu(self.c1(self.shift(x))))
        return self.fc(x.mean((2, 3))).view(b, t, -1).mean(1)


class SlowFast(nn.Module):
    """Two pathways of different rates, joined by a strided convolution over time."""

    def __init__(self) -> None:
        super().__init__()
        self.slow1, self.fast1 = nn.Conv3d(3, 24, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.Conv3d(3, 8, 3, (1, 2, 2), 1)
        self.lateral = nn.Conv3d(8, 16, (5, 1, 1), (2, 1, 1), (2, 0, 0))
        self.slow2, self.fast2 = nn.Conv3d(40, 48, (1, 3, 3), 1, (0, 1, 1)), nn.Conv3d(8, 16, 3, 1, 1)
        self.fc = nn.Linear(64, 5)

    def forward(self, x: list[Tensor]) -> Tensor:
        slow, fast = F.relu(self.slow1(x[0])), F.relu(self.fast1(x[1]))
        slow = F.relu(self.slow2(torch.cat([slow, self.lateral(fast)], 1)))
        fast = F.relu(self.fast2(fast))
        return self.fc(torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1))


class VolumeUNet(nn.Module):
    """A UNet of volumes with trilinear up-sampling."""

    def __init__(self) -> None:
        super().__init__()
        self.e1, self.e2 = nn.Conv3d(1, 16, 3, 1, 1), nn.Conv3d(16, 32, 3, 1, 1)
        self.d1, self.out = nn.Conv3d(48, 16, 3, 1, 1), nn.Conv3d(16, 2, 1)
        self.up = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.e1(x))
        x = F.relu(self.e2(F.avg_pool3d(first, 2)))
        return self.out(F.relu(self.d1(torch.cat([first, self.up(x)], 1))))


class Cell(nn.Module):
    """A convolutional recurrent cell: one convolution makes all four gates, split by a stored width."""

    def __init__(self, i: int, hidden: int) -> None:
        super().__init__()
        self.hidden_dim = hidden
        self.conv = nn.Conv2d(i + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        gates = self.conv(torch.cat([x, state[0]], dim=1))
        i, f, o, g = torch.split(gates, self.hidden_dim, dim=1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class ConvLstm(nn.Module):
    """Predicts the next frame with two stacked cells."""

    def __init__(self, hidden: tuple[int, int] = (16, 16)) -> None:
        super().__init__()
        self.encode = nn.Conv2d(1, 12, 3, padding=1)
        self.cells = nn.ModuleList([Cell(12, hidden[0]), Cell(hidden[0], hidden[1])])
        self.out = nn.Conv2d(hidden[1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _, h, w = x.shape
        states = [(x.new_zeros(b, cell.hidden_dim, h, w),) * 2 for cell in self.cells]
        for k in range(t):
            y = F.relu(self.encode(x[:, k]))
            for n, cell in enumerate(self.cells):
                states[n] = cell(y, states[n])
                y = states[n][0]
        return self.out(y)


NETS: tuple[UserNet, ...] = nets(
    "signals",
    (TimeDelay, (2, 12, 24)),
    (GatedDilated, (2, 1, 24)),
    (TemporalBlocks, (2, 4, 16), "computed weight"),
    (SpeechGru, (2, 1, 16, 12), "recurrent"),
    (ConvLstm1d, (2, 6, 32), "recurrent"),
    (CellLoop, (2, 3, 1, 16, 16), "recurrent"),
    (Spectral, (2, 2, 16), "fft"),
    (Separator, (2, 1, 64), "stored width"),
    (Raw, (2, 1, 160)),
    (Cube, (1, 3, 4, 8, 8), "literal view"),
    (Factored, (1, 3, 4, 8, 8)),
    (ShiftedFrames, (1, 4, 3, 8, 8), "parts"),
    (SlowFast, ([(1, 3, 2, 12, 12), (1, 3, 4, 12, 12)],), "list input"),
    (VolumeUNet, (1, 1, 8, 8, 8), "3-D"),
    (ConvLstm, (1, 3, 1, 8, 8), "stored width"),
)
