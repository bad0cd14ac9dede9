"""Writes models.json: what scikit-learn makes of the models in src/surrogate/gp.rs and ridge.rs.

    pip install numpy scikit-learn && python3 generate.py
"""
import json

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

rng = np.random.default_rng(7)
points = rng.normal(size=(90, 3)).round(3)
points[80:] = points[:10]  # the same places again
targets = (points @ [1.0, -0.5, 0.0] + np.sin(2 * points[:, 2]) + 0.3 * rng.normal(size=90)).round(3)
at = np.concatenate([rng.normal(size=(4, 3)).round(3), points[:2]])

squared_length = 1.7
noise = np.where(targets > np.median(targets), 0.03, 0.1)
length = np.sqrt(squared_length)
kernel = 0.5 * RBF(length) + 0.5 * RBF(length / 2)
process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(points, targets)
mean, covariance = process.predict(at, return_cov=True)

centred = points - points.mean(0)
scaled = centred / np.sqrt((centred**2).sum(1).mean())
errors = {}
for alpha in [0.01, 0.1, 1.0, 10.0]:
    left_out = cross_val_predict(Ridge(alpha), scaled, targets, cv=LeaveOneOut())
    errors[alpha] = ((left_out - targets) ** 2).sum()
alpha = min(errors, key=errors.get)
weights = Ridge(alpha).fit(scaled, targets).coef_
precision = scaled.T @ scaled / alpha + np.eye(3)

json.dump(
    {
        "points": points.tolist(), "targets": targets.tolist(), "at": at.tolist(),
        "squared_length": squared_length, "noise": noise.tolist(), "mean": mean.tolist(), "covariance": covariance.tolist(),
        "left_out_error": errors[alpha], "weights": weights.tolist(), "weights_covariance": np.linalg.inv(precision).tolist(),
    },
    open("models.json", "w"), indent=0,
)
