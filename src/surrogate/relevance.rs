//! Relevance weights: how much each feature group contributes to the distance, learned from the observations.

use ndarray::{Array1, ArrayView2};

use super::kernel::correlation;
use crate::error::{Result, WrapErr};
use crate::linalg::Cholesky;

/// The penalty on the weights of columns, in nats for a weight of 1. It gives no weight to columns that do not help to predict
/// the score.
const PENALTY: f64 = 10.0;
/// The prior weight of the embedding.
const PRIOR_EMBEDDING: f64 = 0.7;
/// The prior weight of all documents together. They say something else than an embedding about the same texts.
const PRIOR_DOCUMENTS: f64 = 0.3;
/// The prior weight of all other columns together, if there are documents.
const PRIOR_OTHER_COLUMNS: f64 = 0.1;
/// How strongly the weights of the embedding and of documents stay near their prior: as many pseudo-observations of a Dirichlet
/// distribution. There are few hits to learn them from.
const DOCUMENTS_STRENGTH: f64 = 30.0;
/// A fit starts from a mean of the prior weights and the previous weights. This is the share of the prior weights.
const PRIOR_SHARE: f64 = 0.3;
/// The smallest weight that a fit tries.
const MIN_WEIGHT: f64 = 0.001;
/// The number of steps of a fit.
const STEPS: usize = 25;

/// The weights of the feature groups in the squared distance of two items (automatic relevance determination, over groups).
///
/// The fit has its own noise factor. Without it, irrelevant groups would get weight, because they explain the noise.
#[derive(Clone, Debug)]
pub(super) struct Relevance {
    /// The weight of each group, the embedding first. They sum to 1.
    pub weights: Vec<f64>,
    noise_factor: f64,
    /// The groups that are documents.
    documents: Vec<usize>,
}

impl Relevance {
    /// The prior weights.
    pub fn new(groups: usize) -> Self {
        let others = (groups - 1).max(1) as f64;
        let weights =
            (0..groups).map(|group| if group == 0 { PRIOR_EMBEDDING } else { (1.0 - PRIOR_EMBEDDING) / others });
        let sum = if groups > 1 { 1.0 } else { PRIOR_EMBEDDING };
        Relevance { weights: weights.map(|weight| weight / sum).collect(), noise_factor: 1.0, documents: Vec::new() }
    }

    /// The prior weights if some groups are documents.
    pub fn with_documents(groups: usize, documents: Vec<usize>) -> Self {
        if documents.is_empty() {
            return Relevance::new(groups);
        }
        let others = groups - 1 - documents.len();
        let other_weight = if others > 0 { PRIOR_OTHER_COLUMNS } else { 0.0 };
        let weight = |group: usize| match group {
            0 => 1.0 - PRIOR_DOCUMENTS - other_weight,
            _ if documents.contains(&group) => PRIOR_DOCUMENTS / documents.len() as f64,
            _ => other_weight / others as f64,
        };
        Relevance { weights: (0..groups).map(weight).collect(), noise_factor: 1.0, documents }
    }

    /// The groups that are documents.
    pub fn documents(&self) -> &[usize] {
        &self.documents
    }

    /// Whether the weight of a group is that of a column with a penalty.
    fn has_penalty(&self, group: usize) -> bool {
        group > 0 && !self.documents.contains(&group)
    }

    /// The pseudo-observations of a group: `30 p` for the prior weight p of the embedding and of documents, if there are documents.
    fn strength(&self, group: usize) -> f64 {
        match group {
            _ if self.documents.is_empty() => 0.0,
            0 => DOCUMENTS_STRENGTH * (1.0 - PRIOR_DOCUMENTS),
            _ if self.documents.contains(&group) => DOCUMENTS_STRENGTH * PRIOR_DOCUMENTS / self.documents.len() as f64,
            _ => 0.0,
        }
    }

    /// Fits the weights w to targets z at n points. The objective is the leave-one-out predictive density, minus penalties on the
    /// weights of columns and on noise factors t far from 1. It is maximised by Rprop over the logarithms of the weights and of t.
    /// `squared` `(groups, n * n)` contains the squared distances of all pairs of points in each group, scaled to mean 1.
    ///
    /// ```text
    /// D = sum_g w_g S_g         e = exp(-D / 2)         K = (e + e^4) / 2 + t N         a = K^-1 z         k = diag(K^-1)
    /// value = sum_i (ln(k_i) / 2 - a_i^2 / (2 k_i)) - 10 sum_(g > 0) w_g - ln(t)^2 / 2
    /// ```
    ///
    /// Documents have no penalty. If there are some, `sum_g 30 p_g ln w_g` over the embedding and the documents is added, with
    /// their prior weights p: the logarithm of a Dirichlet density.
    ///
    /// Sources: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2; Riedmiller and
    /// Braun, A direct adaptive method for faster backpropagation learning: the RPROP algorithm (1993).
    ///
    /// # Errors
    /// Distances that are not finite.
    pub fn fit(&mut self, squared: ArrayView2<'_, f64>, targets: &Array1<f64>, noise: &Array1<f64>) -> Result<()> {
        let groups = squared.nrows();
        if groups < 2 {
            return Ok(());
        }
        let prior = Relevance::with_documents(groups, self.documents.clone()).weights;
        let start =
            self.weights.iter().zip(prior).map(|(last, prior)| (1.0 - PRIOR_SHARE) * last + PRIOR_SHARE * prior);
        let mut logs: Vec<f64> =
            start.map(|weight| weight.max(MIN_WEIGHT).ln()).chain([self.noise_factor.ln()]).collect();
        let (mut steps, mut last_signs) = (vec![0.4; groups + 1], vec![0.0; groups + 1]);
        let mut best: Option<(f64, Relevance)> = None;
        for _ in 0..STEPS {
            normalise(&mut logs[..groups]);
            let relevance = Relevance {
                weights: logs[..groups].iter().map(|log| log.exp()).collect(),
                noise_factor: logs[groups].exp(),
                documents: self.documents.clone(),
            };
            let (value, gradient) = relevance.value_and_gradient(squared, targets, noise)?;
            if best.as_ref().is_none_or(|(highest, _)| value > *highest) {
                best = Some((value, relevance));
            }
            for parameter in 0..=groups {
                let mut sign = if gradient[parameter] == 0.0 { 0.0 } else { gradient[parameter].signum() };
                let agreement = sign * last_signs[parameter];
                if agreement > 0.0 {
                    steps[parameter] = f64::min(steps[parameter] * 1.3, 1.0);
                } else if agreement < 0.0 {
                    steps[parameter] *= 0.5;
                    sign = 0.0;
                }
                last_signs[parameter] = sign;
                // Steps of the noise factor are half as long.
                let scale = if parameter < groups { 1.0 } else { 0.5 };
                logs[parameter] += sign * steps[parameter] * scale;
            }
            logs[..groups].iter_mut().for_each(|log| *log = log.max(MIN_WEIGHT.ln()));
        }
        if let Some((_, relevance)) = best {
            *self = relevance;
        }
        Ok(())
    }

    /// The objective, and its gradient with respect to the logarithm of each weight and of the noise factor.
    fn value_and_gradient(
        &self,
        squared: ArrayView2<'_, f64>,
        targets: &Array1<f64>,
        noise: &Array1<f64>,
    ) -> Result<(f64, Vec<f64>)> {
        let n = targets.len();
        let weights = ArrayView2::from_shape((1, self.weights.len()), &self.weights).wrap_err("relevance weights")?;
        let distances = weights.dot(&squared).into_shape_with_order((n, n)).wrap_err("relevance weights")?;
        let exponentials = distances.mapv_into(|squared| (-0.5 * squared).exp());
        let mut covariance = exponentials.mapv(correlation);
        covariance.diag_mut().zip_mut_with(noise, |value, noise| *value += self.noise_factor * noise);
        let inverse = Cholesky::new(&covariance, "covariance of the observations")?.inverse();
        let a = inverse.dot(targets);
        let k = inverse.diag().to_owned();
        let density: f64 = a.iter().zip(&k).map(|(a, k)| 0.5 * k.ln() - a * a / (2.0 * k)).sum();
        let ln_factor = self.noise_factor.ln();
        let penalised = self.weights.iter().enumerate().filter(|(group, _)| self.has_penalty(*group));
        let mut value =
            density - PENALTY * penalised.map(|(_, weight)| *weight).sum::<f64>() - 0.5 * ln_factor * ln_factor;
        if !self.documents.is_empty() {
            value +=
                self.weights.iter().enumerate().map(|(group, weight)| self.strength(group) * weight.ln()).sum::<f64>();
        }

        // The gradient of the density with respect to the covariance: u a' - K^-1 diag((1 + a^2 / k) / k) K^-1 / 2, where u = K^-1 (a / k).
        let u = inverse.dot(&(&a / &k));
        let weights = Array1::from_iter(a.iter().zip(&k).map(|(a, k)| (1.0 + a * a / k) / k));
        let mut gradient = (&inverse * &weights).dot(&inverse);
        gradient *= -0.5;
        for (row, mut gradients) in gradient.rows_mut().into_iter().enumerate() {
            for (column, gradient) in gradients.iter_mut().enumerate() {
                *gradient += 0.5 * (u[row] * a[column] + u[column] * a[row]);
            }
        }
        let along_noise: f64 = gradient.diag().iter().zip(noise).map(|(gradient, noise)| gradient * noise).sum();
        // The derivative of the covariance with respect to the distance: -(e + 4 e^4) / 4.
        gradient.zip_mut_with(&exponentials, |gradient, e| *gradient *= -0.25 * (e + 4.0 * e.powi(4)));
        let gradient = gradient.into_shape_with_order((n * n, 1)).wrap_err("relevance weights")?;
        let mut along_weights: Vec<f64> = squared.dot(&gradient).into_iter().collect();
        for (group, along) in along_weights.iter_mut().enumerate() {
            if self.has_penalty(group) {
                *along -= PENALTY;
            } else if !self.documents.is_empty() {
                *along += self.strength(group) / self.weights[group];
            }
        }
        let mean: f64 = self.weights.iter().zip(&along_weights).map(|(weight, along)| weight * along).sum();
        let along_logs = self.weights.iter().zip(&along_weights).map(|(weight, along)| weight * (along - mean));
        Ok((value, along_logs.chain([self.noise_factor * along_noise - ln_factor]).collect()))
    }
}

/// Shifts the logarithms of weights so that the weights sum to 1.
fn normalise(logs: &mut [f64]) {
    let sum: f64 = logs.iter().map(|log| log.exp()).sum();
    logs.iter_mut().for_each(|log| *log -= sum.ln());
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// Two feature groups of 60 points. The second determines the targets.
    fn example() -> (Array2<f64>, Array1<f64>, Array1<f64>) {
        let group = |step: usize| Array1::from_iter((0..60).map(|i| ((i * step) % 60) as f64 / 17.3));
        let (first, second) = (group(7), group(11));
        let squared = |x: &Array1<f64>| Array2::from_shape_fn((60, 60), |(i, j)| (x[i] - x[j]).powi(2) / 2.0);
        let targets = second.mapv(|x| 1.4 * (2.0 * x).sin());
        let squared = ndarray::stack![ndarray::Axis(0), squared(&first).into_flat(), squared(&second).into_flat()];
        (squared, targets, Array1::from_elem(60, 0.05))
    }

    #[test]
    fn the_gradient_is_that_of_the_value() {
        for documents in [vec![], vec![1]] {
            check_gradient(documents);
        }
    }

    fn check_gradient(documents: Vec<usize>) {
        let (squared, targets, noise) = example();
        let evaluate = |logs: &[f64]| {
            let mut logs = logs.to_vec();
            normalise(&mut logs[..2]);
            let weights = vec![logs[0].exp(), logs[1].exp()];
            let relevance = Relevance { weights, noise_factor: logs[2].exp(), documents: documents.clone() };
            relevance.value_and_gradient(squared.view(), &targets, &noise).expect("a value")
        };
        let logs = [0.6f64.ln(), 0.4f64.ln(), 0.3];
        let (_, gradient) = evaluate(&logs);
        for parameter in 0..3 {
            let (mut up, mut down) = (logs, logs);
            up[parameter] += 1e-5;
            down[parameter] -= 1e-5;
            let difference = (evaluate(&up).0 - evaluate(&down).0) / 2e-5;
            assert!(
                (difference - gradient[parameter]).abs() < 1e-5 * (1.0 + difference.abs()),
                "{parameter}: {difference} {gradient:?}"
            );
        }
    }

    #[test]
    fn the_group_that_determines_the_targets_gets_most_weight() {
        let (squared, targets, noise) = example();
        let mut relevance = Relevance::new(2);
        relevance.fit(squared.view(), &targets, &noise).expect("a fit");
        assert!(relevance.weights[1] > 0.8, "{relevance:?}");
    }
}
