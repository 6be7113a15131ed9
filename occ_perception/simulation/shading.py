"""Pixels of the simulated cameras as numba kernels: procedural patterns, light, exposure, noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from occ_perception.geometry.lens import jit

_RNG = np.random.default_rng(20240701)
NOISE_TILE = _RNG.random((32, 32, 32), np.float32)
"""Periodic lattice of value noise."""
GRAIN = _RNG.standard_normal(1 << 18).astype(np.float32)
"""Normal numbers of the image noise, read from a random offset per row."""


@jit
def rays_meet_spheres(origins: Any, directions: Any, spheres: Any) -> Any:
    """Whether each unit ray [N, 3] may come near any sphere (centre, radius) [S, 4]; bool [N].

    Rays are tested in packs of 16 neighbours, so that a few more than those that really do are marked.
    """
    meets = np.zeros(len(directions), np.bool_)
    for first in range(0, len(directions), 16):
        last = min(first + 16, len(directions))
        ox, oy, oz = origins[first, 0], origins[first, 1], origins[first, 2]
        dx, dy, dz = directions[first, 0], directions[first, 1], directions[first, 2]
        spread2, offset2 = 0.0, 0.0
        for i in range(first + 1, last):
            spread2 = max(spread2, (directions[i, 0] - dx) ** 2 + (directions[i, 1] - dy) ** 2
                          + (directions[i, 2] - dz) ** 2)
            offset2 = max(offset2, (origins[i, 0] - ox) ** 2 + (origins[i, 1] - oy) ** 2 + (origins[i, 2] - oz) ** 2)
        spread, offset = math.sqrt(spread2), math.sqrt(offset2)
        for s in range(len(spheres)):
            x, y, z = spheres[s, 0] - ox, spheres[s, 1] - oy, spheres[s, 2] - oz
            distance2 = x * x + y * y + z * z
            # a ray of the pack passes at most this much nearer than the first one
            reach = spheres[s, 3] + offset + spread * math.sqrt(distance2)
            along = x * dx + y * dy + z * dz
            if distance2 < reach * reach or (along > 0.0 and distance2 - along * along < reach * reach):
                meets[first:last] = True
                break
    return meets


@jit
def transformed(points: Any, owner: Any, rotation: Any, shift: Any) -> Any:
    """Points [N, 3] of the solids `owner` [N] at their poses (rotation [S, 3, 3], shift [S, 3]), float32 [N, 3]."""
    out = np.empty((len(points), 3), np.float32)
    for i in range(len(points)):
        s = owner[i]
        for a in range(3):
            out[i, a] = (points[i, 0] * rotation[s, a, 0] + points[i, 1] * rotation[s, a, 1]
                         + points[i, 2] * rotation[s, a, 2] + shift[s, a])
    return out


@jit
def turned(rays: Any, R: Any) -> Any:
    """R applied to float32 rays [N, 3]."""
    out = np.empty_like(rays)
    for i in range(len(rays)):
        x, y, z = rays[i, 0], rays[i, 1], rays[i, 2]
        for a in range(3):
            out[i, a] = R[a, 0] * x + R[a, 1] * y + R[a, 2] * z
    return out


@jit
def _hash(a: int, b: int, c: int) -> float:
    """A fixed number in 0..1 for a lattice cell."""
    h = (a * 374761393 + b * 668265263 + c * 2147483647) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return float(((h ^ (h >> 16)) & 0xFFFF) / 65535.0)


@jit
def _noise(tile: Any, x: float, y: float, z: float) -> float:
    """Trilinear value noise, -1..1."""
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    ix, iy, iz = int(fx), int(fy), int(fz)
    x, y, z = x - fx, y - fy, z - fz
    x0, x1, y0, y1, z0, z1 = ix & 31, (ix + 1) & 31, iy & 31, (iy + 1) & 31, iz & 31, (iz + 1) & 31
    a = tile[x0, y0, z0] * (1 - z) + tile[x0, y0, z1] * z
    b = tile[x0, y1, z0] * (1 - z) + tile[x0, y1, z1] * z
    c = tile[x1, y0, z0] * (1 - z) + tile[x1, y0, z1] * z
    d = tile[x1, y1, z0] * (1 - z) + tile[x1, y1, z1] * z
    return float(2.0 * ((a * (1 - y) + b * y) * (1 - x) + (c * (1 - y) + d * y) * x) - 1.0)


@jit
def _line(u: float, period: float, width: float, footprint: float) -> float:
    """Share of a pixel of that footprint covered by a line of `width` at every multiple of `period` (0..1)."""
    d = abs(u / period - math.floor(u / period + 0.5)) * period
    blur = max(footprint, 1e-4)
    return min(1.0, max(0.0, 0.5 + (0.5 * width - d) / blur)) * min(1.0, width / blur * 2.0)


@jit
def _pattern(tile: Any, texture: int, x: float, y: float, z: float, nx: float, ny: float, nz: float,
             half_z: float, frame: int, footprint: float, night: bool) -> tuple[float, float, float, float]:
    """Own glow of a surface point, and the factors on its red, green and blue.

    (x, y, z) metres and normal are in the frame of the solid; patterns finer than the pixel's footprint fade.
    """
    ax, ay, az = abs(nx), abs(ny), abs(nz)
    if az >= ax and az >= ay:
        u, v = x, y
    elif ax >= ay:
        u, v = y, z
    else:
        u, v = x, z
    near = 1.0 / (1.0 + 12.0 * footprint)
    fine = 1.0 / (1.0 + 60.0 * footprint)
    coarse = 0.0 if texture == 3 else _noise(tile, 0.35 * x + 7.0 * (frame % 13), 0.35 * y, 0.35 * z + 3.0)
    f = 1.0 + 0.10 * coarse
    glow = 0.0
    r, g, b = 1.0, 1.0, 1.0
    if texture == 1:  # brick
        row = math.floor(v / 0.08)
        shift = 0.125 if row % 2 else 0.0
        joint = max(_line(v, 0.08, 0.012, footprint), _line(u + shift, 0.25, 0.012, footprint))
        tint = 0.22 * (_hash(int(math.floor((u + shift) / 0.25)), int(row), 7) - 0.5) * fine
        f = (f + tint) * (1.0 - joint) + 1.25 * joint
    elif texture == 2:  # windows
        if az < 0.7:
            cu, cv = math.floor(u / 2.4), math.floor((v + half_z) / 3.0)
            du, dv = u / 2.4 - cu, (v + half_z) / 3.0 - cv
            if 0.22 < du < 0.78 and 0.30 < dv < 0.80:
                lit = _hash(int(cu), int(cv), frame)
                frame_line = abs(du - 0.5) < 0.015 or du < 0.245 or du > 0.755 or dv < 0.32 or dv > 0.78
                if frame_line and footprint < 0.08:
                    r, g, b = 1.15, 1.15, 1.15
                else:
                    shade = 0.22 + 0.25 * lit + 0.12 * dv
                    r, g, b = shade * 0.8, shade * 0.95, shade * 1.15
                    if night and lit > 0.62:
                        glow = 0.10 + 0.5 * (lit - 0.62)
                f = 1.0
            else:
                f += 0.10 * fine * _noise(tile, 9.0 * u, 9.0 * v, 0.5)
    elif texture == 3:  # foliage and grass
        n1 = _noise(tile, 3.1 * x, 3.1 * y, 3.1 * z)
        n2 = _noise(tile, 17.0 * x, 17.0 * y, 17.0 * z) * near
        f = 0.95 + 0.28 * n1 + 0.40 * n2
        r = 1.0 + 0.20 * n1
        b = 1.0 - 0.15 * n1
    elif texture == 4:  # asphalt
        f += 0.10 * _noise(tile, 1.3 * x, 1.3 * y, 0.0) + 0.30 * fine * _noise(tile, 45.0 * x, 45.0 * y, 0.0)
        crack = abs(_noise(tile, 0.55 * x + 11.0, 0.55 * y, 9.0))
        if crack < 0.015:
            f *= 1.0 - 0.35 * near
    elif texture == 5:  # slabs
        joint = max(_line(u, 0.75, 0.014, footprint), _line(v, 0.75, 0.014, footprint))
        tint = 0.16 * (_hash(int(math.floor(u / 0.75)), int(math.floor(v / 0.75)), 3) - 0.5)
        f += tint + 0.10 * fine * _noise(tile, 23.0 * u, 23.0 * v, 1.0)
        f *= 1.0 - 0.55 * joint
    elif texture == 6:  # stripes
        bar = math.floor(x / 0.5) % 2
        f = (1.0 if bar == 0 else 0.33) + 0.10 * coarse + 0.08 * fine * _noise(tile, 31.0 * x, 31.0 * y, 2.0)
    elif texture == 7:  # cloth
        f += 0.16 * near * _noise(tile, 8.0 * x + frame, 8.0 * y, 8.0 * z)
    elif texture == 8:  # metal
        f += 0.18 * nz + 0.05 * near * _noise(tile, 5.0 * x, 5.0 * y, 5.0 * z)
    elif texture == 9:  # glass
        f = 0.75 + 0.5 * max(0.0, nz) + 0.12 * coarse
    elif texture == 10:  # wood
        f += 0.14 * _noise(tile, 3.0 * u, 40.0 * v, 0.0) * near - 0.35 * _line(v, 0.14, 0.01, footprint)
    elif texture == 11:  # stone
        f += 0.14 * _noise(tile, 2.5 * x, 2.5 * y, 2.5 * z) + 0.18 * fine * _noise(tile, 19.0 * x, 19.0 * y, 19.0 * z)
    else:
        f += 0.05 * near * _noise(tile, 6.0 * x, 6.0 * y, 6.0 * z)
    f = max(f, 0.05)
    return glow, f * r, f * g, f * b


@jit
def _flat_normals(triangles: Any, frame: Any, to_solid: Any) -> Any:
    """Normals of triangles [T, 3, 3] in the frames of their solids, not of unit length, [T, 3]."""
    normals = np.empty((len(triangles), 3))
    for t in range(len(triangles)):
        T, M = triangles[t], to_solid[frame[t]]
        ux, uy, uz = T[1, 0] - T[0, 0], T[1, 1] - T[0, 1], T[1, 2] - T[0, 2]
        vx, vy, vz = T[2, 0] - T[0, 0], T[2, 1] - T[0, 1], T[2, 2] - T[0, 2]
        x, y, z = float(uy * vz - uz * vy), float(uz * vx - ux * vz), float(ux * vy - uy * vx)
        normals[t, 0] = M[0] * x + M[1] * y + M[2] * z
        normals[t, 1] = M[4] * x + M[5] * y + M[6] * z
        normals[t, 2] = M[8] * x + M[9] * y + M[10] * z
    return normals


@jit
def seen_by(rows: Any, range_m: Any, index: Any, label: Any, track_id: Any, semantics: Any, ranges: Any,
            track_ids: Any) -> None:
    """Writes what rays met into flat images: class, range and track id at the pixels `rows` [N]."""
    for i in range(len(rows)):
        t = index[i]
        if t >= 0:
            semantics[rows[i]] = label[t]
            ranges[rows[i]] = range_m[i]
            track_ids[rows[i]] = track_id[t]
        else:
            semantics[rows[i]] = 0


@jit
def radiance(tile: Any, origin: Any, rays: Any, range_m: Any, index: Any, lit: Any, label: Any, texture: Any,
             colour: Any, glow: Any, frame: Any, triangles: Any, to_solid: Any, kind: Any, half_m: Any,
             pixel_rad: float, night: bool, sun: Any, sun_colour: Any, ambient: Any, sky: Any,
             lamps: Any, lamp_colour: Any, out: Any) -> None:
    """Linear RGB seen along each ray.

    Args:
        origin: of all rays, [3]; rays: unit, float32 [N, 3]; range_m [N]; index: triangle [N], -1 is sky.
        lit: share of direct sun, uint8 [N], 255 all.
        label ... half_m: the arrays of `Surfaces`.
        pixel_rad: angle of a pixel.
        sun, sun_colour, ambient, sky: [3].
        lamps: x, y, z, power, direction (3; 0 shines everywhere), [L, 7]; lamp_colour [L, 3].
        out: float32 [N, 3].
    """
    origin_x, origin_y, origin_z = origin[0], origin[1], origin[2]
    sun_x, sun_y, sun_z = sun[0], sun[1], sun[2]
    flat = _flat_normals(triangles, frame, to_solid)
    for i in range(len(rays)):
        dx, dy, dz = rays[i, 0], rays[i, 1], rays[i, 2]
        t = index[i]
        if t < 0:
            up = max(0.0, dz)
            glare = max(0.0, dx * sun_x + dy * sun_y + dz * sun_z)
            cloud = 0.0
            if up > 0.02:
                cloud = max(0.0, _noise(tile, 1.3 * dx / (up + 0.15), 1.3 * dy / (up + 0.15), 5.5))
                cloud *= min(1.0, 4 * up)
            for c in range(3):
                haze = 1.0 - up
                base = sky[c] * (0.75 + 0.35 * haze * haze) + 0.25 * cloud * sky[2]
                out[i, c] = base + (0.0 if night else sun_colour[c] * (0.35 * glare ** 24 + 4.0 * glare ** 900))
            continue
        dist = range_m[i]
        px, py, pz = origin_x + dist * dx, origin_y + dist * dy, origin_z + dist * dz
        f = frame[t]
        x = to_solid[f, 0] * px + to_solid[f, 1] * py + to_solid[f, 2] * pz + to_solid[f, 3]
        y = to_solid[f, 4] * px + to_solid[f, 5] * py + to_solid[f, 6] * pz + to_solid[f, 7]
        z = to_solid[f, 8] * px + to_solid[f, 9] * py + to_solid[f, 10] * pz + to_solid[f, 11]
        k = kind[f]
        hx, hy, hz = half_m[f, 0], half_m[f, 1], half_m[f, 2]
        # normal in the frame of the solid: of the analytic shape for round ones, of the triangle otherwise
        round_side = k == 2 and abs(z) < hz * 0.999
        if k == 3:
            lx, ly, lz = x / (hx * hx), y / (hy * hy), z / (hz * hz)
        elif round_side:
            lx, ly, lz = x / (hx * hx), y / (hy * hy), 0.0
        else:
            lx, ly, lz = flat[t, 0], flat[t, 1], flat[t, 2]
        norm = math.sqrt(lx * lx + ly * ly + lz * lz) + 1e-20
        lx, ly, lz = lx / norm, ly / norm, lz / norm
        nx = to_solid[f, 0] * lx + to_solid[f, 4] * ly + to_solid[f, 8] * lz
        ny = to_solid[f, 1] * lx + to_solid[f, 5] * ly + to_solid[f, 9] * lz
        nz = to_solid[f, 2] * lx + to_solid[f, 6] * ly + to_solid[f, 10] * lz
        if nx * dx + ny * dy + nz * dz > 0:
            nx, ny, nz = -nx, -ny, -nz
        own, red, green, blue = _pattern(tile, texture[t], x, y, z, lx, ly, lz, hz, f, dist * pixel_rad, night)
        own = max(own, glow[t])
        cosine = max(0.0, nx * sun_x + ny * sun_y + nz * sun_z) * lit[i] / 255.0
        hemisphere = 0.62 + 0.38 * nz
        shine = 0.0
        if texture[t] == 8 or texture[t] == 9:
            # sky mirrored by paint and glass
            dot = nx * dx + ny * dy + nz * dz
            if dz - 2 * dot * nz > 0:
                shine = (0.10 if texture[t] == 8 else 0.30) * (1.0 + dot) + 0.03
        r, g, b = ambient[0] * hemisphere, ambient[1] * hemisphere, ambient[2] * hemisphere
        r, g, b = r + sun_colour[0] * cosine, g + sun_colour[1] * cosine, b + sun_colour[2] * cosine
        for s in range(len(lamps)):
            wx, wy, wz = lamps[s, 0] - px, lamps[s, 1] - py, lamps[s, 2] - pz
            r2 = wx * wx + wy * wy + wz * wz + 0.05
            power = lamps[s, 3] / r2
            if power < 2e-3:
                continue
            inv = 1.0 / math.sqrt(r2)
            facing = (wx * nx + wy * ny + wz * nz) * inv
            if facing <= 0:
                continue
            beam = -(wx * lamps[s, 4] + wy * lamps[s, 5] + wz * lamps[s, 6]) * inv
            if lamps[s, 4] != 0 or lamps[s, 5] != 0 or lamps[s, 6] != 0:
                power *= max(0.0, (beam - 0.75) * 4.0)
            power *= facing
            r += power * lamp_colour[s, 0]
            g += power * lamp_colour[s, 1]
            b += power * lamp_colour[s, 2]
        # a little air between here and far away
        air = 0.0 if night else 1.0 - math.exp(-dist / 220.0)
        out[i, 0] = (colour[t, 0] * red * r + shine * sky[0]) * (1 - air) + air * sky[0]
        out[i, 1] = (colour[t, 1] * green * g + shine * sky[1]) * (1 - air) + air * sky[1]
        out[i, 2] = (colour[t, 2] * blue * b + shine * sky[2]) * (1 - air) + air * sky[2]
        if own > 0:
            out[i, 0] += own * 1.6 * (1.0 if glow[t] == 0 else colour[t, 0])
            out[i, 1] += own * 1.6 * (0.86 if glow[t] == 0 else colour[t, 1])
            out[i, 2] += own * 1.6 * (0.6 if glow[t] == 0 else colour[t, 2])


@jit
def develop(linear: Any, rows: Any, vignette: Any, gain: float, noise: float, grain: Any, offset: int, curve: Any,
            image: Any) -> None:
    """Exposes linear light [N, 3] into the pixels `rows` [N] of a flat uint8 image [H * W, 3].

    `vignette` float32 [N] darkens the rim; `noise` is the standard deviation of a mid-grey pixel (it grows where the
    image is dark, as shot noise does); `curve` uint8 maps linear light 0..1 in equal steps to pixel values.
    """
    mask, last = len(grain) - 1, len(curve) - 1
    for i in range(len(rows)):
        v = vignette[i] * gain
        for c in range(3):
            light = linear[i, c] * v
            light += noise * grain[(offset + 3 * i + c) & mask] * math.sqrt(light + 0.02)
            light = light / (1.0 + 0.18 * light)  # soft shoulder
            image[rows[i], c] = curve[min(last, max(0, int(light * last)))]
