//! A model of the scores chooses what to pay for: the `SurrogateUpdate` rule.

use std::collections::HashSet;

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use polars::prelude::DataFrame;
use rand::seq::SliceRandom;

use super::acquisition::{FRONT, FRONT_ELSEWHERE, Model, OTHERS};
use super::candidates::library::Library;
use super::candidates::query_points::{BEST, finite, finite_rows, first_of_each, in_turn, places, slots};
use super::candidates::shortlist::Shortlist;
use super::kernel::Measure;
use super::leakage::giveaway;
use super::niching::Niche;
use super::observations::Seen;
use super::plan::{LARGEST, batch};
use super::relevance::Shares;
use super::space::Views;
use crate::database::VectorDatabase;
use crate::error::{Error, Result, WrapErr};
use crate::features::{Features, ItemFeatures};
use crate::frame::convert;
use crate::frame::schema::{self, DB_IDX, EMBEDDING, QUERY_IDX, SCORE};
use crate::random::random_stream;
use crate::select::Select;
use crate::step::Step;
use crate::update::{QueryUpdate, SearchContext};

/// Neighbours that each query meets, at first.
const REACH: usize = 100;
/// Rows of candidates in one search, at most: of each the embedding (4 bytes a component) and the attributes are in
/// memory at once. 768 components are 150 MB.
const CANDIDATES: usize = 50_000;
/// Items that the shares of the views are learned from, at most.
const LEARNED: usize = 300;
/// Items of which the spread of the library is told, where it is too large to be ranked as a whole.
const SPREAD: usize = 2000;

/// Chooses the items worth paying for by a Gaussian process of the scores seen so far, over all that is known of an item:
/// its embedding, and the columns beside it ([`Features`]).
///
/// Of the candidates it scores only a batch: each item is the best of a posterior sample of its own, of those not chosen yet
/// (Thompson sampling), whose deviation from the posterior mean shrinks as more scores are known. The process is fitted
/// anew for every batch.
///
/// - *Candidates*: the whole library, where its items as vectors and their kernels with all points fit into 400 MB (some
///   tens of thousands of items): the 300 of the highest posterior mean and 64 others. Of a larger one what the queries
///   meet: the neighbours of the 30 best items (where fewer are better than half of the first 32, of random ones in their
///   place) and of 8 random items, and the items farthest along 4 directions in which a linear model sees the score grow
///   (its posterior mean and three draws); and, where columns say something, a shortlist by one pass over them: the 100
///   nearest of each of the 20 best, and the 100 farthest along each of 4 such directions. Booked items are left out.
/// - *Distance* of two items: a sum over views, the embedding and each column, of squared distances of mean 1, each times a
///   share. The shares are learned from what was scored, anew when half as much again is known: they make what is left out
///   most likely, at a price for each share that is not the embedding's, so that a column has to say something.
///   A column that orders the scores nearly by itself is named on screen: it may be made from the score.
/// - *Kernel*: the mean of two squared exponentials, of lengths l and l / 2, where `l^2` is the median squared distance
///   of the points; noise 0.1, and 0.03 for the better half of the points, whose differences matter.
/// - *Batch*: 5 % of the items asked so far, at least 5 and at most 32, unless set; where there is a budget, a fortieth of
///   it is enough. Small batches find more.
/// - *Elsewhere*: where there is more than one peak the best items crowd on the highest that was found. Once one in
///   a hundred items has a score (at least 100, at most 300 are enough) a part of each batch, at most half, is chosen by a second process that knows nothing of the tenth of the library
///   around them; how large a part, is told by how often items there and elsewhere were among the best twentieth.
/// - *Behind*: with [`behind`](SurrogateUpdate::behind) a batch is chosen while so many before it are out. Their items are points
///   of the process whose targets are its own mean (the kriging believer): samples stray less near them.
/// - *Start*: the nearest item of each starting query, then random items, until one in 2000 of the library was asked
///   (at least 16, at most 64; where there is a budget, a sixth of it is enough, at least 4) and one has a score. The budget
///   is the one that the run was started with: raised later, it changes no plan.
/// - *What was paid for before* (`score.reuse`) is booked first, at no cost, at most 50,000 items: the model begins with it.
///   As most of it is what an earlier search had chosen, targets are cut at its lowest eighth, not at its median.
/// - *Points*: at most 1000 unless set: the best half, the latest quarter, and a random quarter of the rest.
/// - *Targets*: scores cut from below at the median of the first 32, standardised, and from 3 deviations up only
///   logarithmic: differences among bad items and single huge scores do not shape the model.
/// - *No score*: an item that was rejected or failed counts as the worst: it is a point at the floor of the targets,
///   so that its neighbours are avoided, and never one of the best. Where more than half of the first 32 are such
///   items, the floor is the lowest score.
/// - *Filters*: where too few candidates pass one to fill a batch, twice as many are asked for from then on, up to 50,000
///   rows in one search. Where none of so many passes, the next search looks around random items only. What lets fewer pass
///   than one in some thousands is better asked of the database itself
///   ([`LanceDatabase::prefilter`](crate::LanceDatabase::prefilter)).
///
/// Its queries have no path of their own: where the whole library is ranked there is one, at the best item so far; else each
/// iteration's are new places, in the same slots. Sources: Rasmussen and Williams, Gaussian Processes for Machine Learning
/// (2006), for the process and its leave-one-out density; Hernandez-Lobato et al., Parallel and distributed Thompson sampling
/// (2017); the rest was found by measuring (`benches/strategies.rs`).
#[derive(Clone)]
pub struct SurrogateUpdate {
    batch: Option<usize>,
    points: usize,
    behind: usize,
    features: Features,
    planned: Option<u64>,
    views: Option<Views>,
    /// All items, where they are few enough; else some that tell of the others.
    library: Option<Library>,
    spread: Array2<f32>,
    shortlist: Shortlist,
    seen: Seen,
    shares: Shares,
    measure: Option<Measure>,
    /// How many items must have been asked for the measure to be learned anew.
    next_fit: usize,
    niche: Niche,
    model: Option<Model>,
    /// Items asked after each iteration, and of how many iterations the first model was made.
    pace: Vec<usize>,
    sighted: Option<usize>,
    /// Items that were scored before.
    known: HashSet<u64>,
    candidates: Vec<u64>,
    /// Columns that were named as giving the score away.
    named: Vec<String>,
    /// How many times as many candidates as at first.
    wide: usize,
    /// Whether the last search gave nothing, and cannot reach farther.
    barren: bool,
}

impl Default for SurrogateUpdate {
    fn default() -> Self {
        SurrogateUpdate {
            batch: None,
            points: 1000,
            behind: 0,
            features: Features::Auto,
            planned: None,
            views: None,
            library: None,
            spread: Array2::default((0, 0)),
            shortlist: Shortlist::default(),
            seen: Seen::default(),
            shares: Shares::new(1),
            measure: None,
            next_fit: 0,
            niche: Niche::of(0),
            model: None,
            pace: Vec::new(),
            sighted: None,
            known: HashSet::new(),
            candidates: Vec::new(),
            named: Vec::new(),
            wide: 1,
            barren: false,
        }
    }
}

impl std::fmt::Debug for SurrogateUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("SurrogateUpdate");
        debug.field("batch", &self.batch).field("points", &self.points).field("features", &self.features);
        debug.field("asked", &self.seen.asked()).finish_non_exhaustive()
    }
}

impl SurrogateUpdate {
    /// Items scored per iteration, at most, where nothing is said.
    pub const LARGEST_BATCH: usize = LARGEST;

    /// The untuned rule.
    pub fn new() -> Self {
        Self::default()
    }

    /// Items scored per iteration (default: grows from 5 to 32).
    pub fn batch(mut self, items: usize) -> Self {
        self.batch = Some(items);
        self
    }

    /// Items asked that the models are fitted to, at most (default 1000). Fitting takes time as the cube of it.
    pub fn points(mut self, points: usize) -> Self {
        self.points = points;
        self
    }

    /// How many batches may be out when the next is chosen (default 0). As soon as there is a model: items that are out
    /// are taken to be worth what it says of them, so that others are chosen. Scores are known later then, and less is found
    /// with as many of them; but nobody waits for the slowest of a batch.
    pub fn behind(mut self, batches: usize) -> Self {
        self.behind = batches;
        self
    }

    /// What is read of the items beside their embeddings (default: [`Features::Auto`]).
    pub fn features(mut self, features: Features) -> Self {
        self.features = features;
        self
    }

    /// Items of the next batch, and whether the model has no say in it.
    fn next_batch(&self, queries: usize, database: &dyn VectorDatabase) -> (usize, bool) {
        let (start, _) = batch(self.seen.asked(), queries, database.len(), self.planned);
        let blind = self.seen.asked() < start || self.seen.scored() == 0;
        (self.batch_of(self.seen.asked(), queries, database), blind)
    }

    /// Items of a batch that is chosen when so many were asked.
    fn batch_of(&self, asked: usize, queries: usize, database: &dyn VectorDatabase) -> usize {
        self.batch.unwrap_or_else(|| batch(asked, queries, database.len(), self.planned).1)
    }

    /// Items that were known when the iteration was chosen that is observed next.
    fn known_then(&self) -> usize {
        let next = self.pace.len();
        let observed = self.sighted.map_or(next, |sighted| next.saturating_sub(self.behind).max(sighted).min(next));
        observed.checked_sub(1).map_or(0, |last| self.pace[last])
    }

    /// Neighbours that each of so many queries meets.
    fn reach(&self, queries: usize) -> usize {
        REACH.saturating_mul(self.wide).min(widest(queries))
    }

    /// The most candidates that the next search can give.
    fn offered(&self, queries: usize) -> usize {
        let met = if self.k(queries) == Some(0) { 0 } else { queries.saturating_mul(self.reach(queries)) };
        met + self.candidates.len()
    }

    /// Learns the measure anew if much more is known than when it was learned, and where the hill is.
    fn learn(&mut self, step: &Step<'_>, groups: &[std::ops::Range<usize>], width: usize) -> Result<()> {
        let chosen = self.seen.chosen(self.points, step.seed);
        let vectors = self.seen.vectors(&chosen, width);
        if self.seen.asked() >= self.next_fit {
            let targets = self.seen.targets().select(Axis(0), &chosen);
            let learned = self.seen.chosen(LEARNED.min(self.points), step.seed);
            let learned: Vec<usize> = learned.iter().filter_map(|item| chosen.binary_search(item).ok()).collect();
            let (scores, threshold) = (self.seen.scores_of(&chosen), self.seen.threshold());
            let measure =
                Measure::fit(&mut self.shares, groups, vectors.view(), &learned, &targets, (&scores, threshold))?;
            if let Some(library) = &mut self.library {
                library.measure(&measure);
            }
            self.shortlist = Shortlist::default();
            self.measure = Some(measure);
            self.name_giveaways(vectors.view(), &chosen, step.is_replay);
            self.next_fit = self.seen.asked() + self.seen.asked().div_ceil(2);
        }
        if let Some(measure) = &self.measure {
            let (points, scores) = (measure.of(vectors.view()), self.seen.scores_of(&chosen));
            match &self.library {
                Some(library) => self.niche.find(points.view(), &scores, library.points()),
                None => self.niche.find(points.view(), &scores, measure.of(self.spread.view()).view()),
            }
        }
        Ok(())
    }

    /// Names, once in a run, columns that say the score nearly by themselves; where they were named before, notes it.
    fn name_giveaways(&mut self, vectors: ArrayView2<'_, f32>, chosen: &[usize], were_named: bool) {
        let Some(views) = &self.views else { return };
        let scores = self.seen.scores_of(chosen);
        for (name, group) in views.names().into_iter().zip(views.groups()).skip(1) {
            let found = giveaway(vectors.column(group.start), &scores);
            if let Some(correlation) = found.filter(|_| !self.named.contains(&name)) {
                if !were_named {
                    log::warn!(
                        "the column `{name}` says the score nearly by itself (rank correlation {correlation:.4} over {} items): \
                         if it is made from the score, leave it out with update.features",
                        scores.len()
                    );
                }
                self.named.push(name);
            }
        }
    }

    /// The items of the whole library that a model finds most promising, and some others.
    fn front(&mut self, model: &Model, out: &HashSet<u64>, step: &Step<'_>) -> Vec<u64> {
        let Some(library) = &mut self.library else { return Vec::new() };
        library.keep(model.of_all().0);
        let is_open = |id: u64| !self.seen.has(id) && !out.contains(&id);
        let mut open: Vec<usize> = (0..library.ids().len()).filter(|row| is_open(library.ids()[*row])).collect();
        // So that among equals chance decides.
        open.shuffle(&mut step.rng("surrogate front", 0));
        let others = open.iter().take(OTHERS.saturating_mul(self.wide)).copied();
        let mut rows: Vec<usize> = others.collect();
        let elsewhere = self.niche.elsewhere(library.points());
        let mut add = |(ids, weights): (&[u64], ArrayView1<'_, f64>), mut best: Vec<usize>, most: usize| {
            let (means, most) = (library.means(ids, weights), most.saturating_mul(self.wide));
            if most < best.len() {
                best.select_nth_unstable_by(most, |a, b| means[*b].total_cmp(&means[*a]));
                best.truncate(most);
            }
            rows.extend(best);
        };
        add(model.of_all(), open.clone(), FRONT);
        if let (Some(mean), Some(elsewhere)) = (model.of_elsewhere(), elsewhere) {
            add(mean, open.into_iter().filter(|row| elsewhere[*row]).collect(), FRONT_ELSEWHERE);
        }
        let mut front: Vec<u64> = rows.into_iter().map(|row| library.ids()[row]).collect();
        front.sort_unstable();
        front.dedup();
        front
    }
}

/// The items in some frames, and their vectors `(items, width)`.
fn vectors_of(frames: &[DataFrame], views: &Views) -> Result<(HashSet<u64>, Array2<f32>)> {
    let (mut all, mut vectors) = (HashSet::new(), Array2::zeros((0, views.width())));
    for frame in frames {
        let ids = schema::u64s(frame, DB_IDX)?;
        vectors.append(Axis(0), views.vectors(&ids, finite(frame)?.view()).view()).wrap_err("items that are out")?;
        all.extend(ids);
    }
    Ok((all, vectors))
}

/// Neighbours that each of so many queries meets at most.
fn widest(queries: usize) -> usize {
    (CANDIDATES / queries.max(1)).max(1)
}

impl QueryUpdate for SurrogateUpdate {
    fn k(&self, queries: usize) -> Option<usize> {
        let ranked = self.library.is_some() && self.model.is_some() && !self.candidates.is_empty();
        Some(if ranked { 0 } else { self.reach(queries) })
    }

    fn revisits(&self) -> bool {
        false
    }

    fn selector(&self) -> Option<&dyn Select> {
        Some(self)
    }

    fn check(&self) -> Result<()> {
        if self.batch == Some(0) || self.points < 2 {
            let (key, least, found) = if self.batch == Some(0) { ("batch", 1, 0) } else { ("points", 2, self.points) };
            return Err(Error::Config(format!("update.{key}: expected at least {least}, found {found}")));
        }
        Ok(())
    }

    fn begin(&mut self, context: &SearchContext<'_>) -> Result<()> {
        let (batch, points, behind, features) = (self.batch, self.points, self.behind, self.features.clone());
        let niche = Niche::of(context.database.len());
        *self = SurrogateUpdate {
            batch,
            points,
            behind,
            features,
            planned: context.planned_budget,
            niche,
            ..Self::default()
        };
        // What is known already costs nothing and makes a random start needless.
        self.candidates = context.reused.iter().copied().take(CANDIDATES).collect();
        self.known = self.candidates.iter().copied().collect();
        let features = context.database.features(&self.features, context.columns_read)?;
        self.shares = Shares::new(1 + features.groups().len());
        if Library::fits(context.database.len(), context.database.dim() + features.width(), self.points) {
            let (library, views) = Library::read(context.database, features)?;
            (self.library, self.views) = (Some(library), Some(views));
        } else {
            let sample = context.database.sample(SPREAD, &mut random_stream(0, "spread", 0, 0))?;
            let items = context.database.take_columns(&sample, &[])?;
            let embeddings = convert::matrix::<f32>(&items, EMBEDDING)?;
            let rows = finite_rows(embeddings.view());
            let (sample, embeddings): (Vec<u64>, _) =
                (rows.iter().map(|row| sample[*row]).collect(), embeddings.view().select(Axis(0), &rows));
            let views = Views::new(features, embeddings.view());
            self.spread = views.vectors(&sample, embeddings.view());
            self.views = Some(views);
        }
        Ok(())
    }

    fn candidates(&self) -> &[u64] {
        &self.candidates
    }

    fn relevance(&self) -> Vec<(String, f32)> {
        let Some(views) = self.views.as_ref().filter(|_| self.measure.is_some()) else { return Vec::new() };
        let shares = self.shares.of.iter().map(|share| *share as f32);
        let mut learned: Vec<(String, f32)> = views.names().into_iter().zip(shares).collect();
        learned.sort_by(|a, b| b.1.total_cmp(&a.1));
        learned
    }

    fn batches_in_flight(&self) -> usize {
        if self.sighted.is_some() { self.behind } else { 0 }
    }

    fn observe(&mut self, step: &Step<'_>) -> Result<()> {
        let (queries, library) = (step.queries.height(), step.database.len().max(1) as usize);
        let (found, offered) = (step.results.height(), self.offered(queries));
        let batch = self.batch_of(self.known_then(), queries, step.database);
        if found < batch.min(offered) {
            self.wide = self.wide.saturating_mul(2).min(library.min(CANDIDATES));
        }
        let reach = self.reach(queries);
        self.barren = found == 0 && self.library.is_none() && reach == widest(queries) && reach < library;
        let embeddings = finite(step.results)?;
        let (scores, db_idx) = (schema::nullable_f64s(step.results, SCORE)?, schema::u64s(step.results, DB_IDX)?);
        let views = self.views.get_or_insert_with(|| Views::new(ItemFeatures::default(), embeddings.view()));
        let vectors = views.vectors(&db_idx, embeddings.view());
        for ((vector, score), item) in vectors.rows().into_iter().zip(&scores).zip(&db_idx) {
            self.seen.add(*item, *score, vector, self.known.contains(item));
        }
        let elsewhere =
            self.measure.as_ref().and_then(|measure| self.niche.elsewhere(measure.of(vectors.view()).view()));
        if let Some(elsewhere) = elsewhere {
            let batch = scores.iter().map(|score| score.unwrap_or(f64::NEG_INFINITY)).zip(elsewhere);
            self.niche.count(batch, &self.seen.best_scores());
        }
        let (groups, width) = (views.groups(), views.width());
        let (_, blind) = self.next_batch(queries, step.database);
        self.pace.push(self.seen.asked());
        self.sighted = self.sighted.or((!blind).then_some(self.pace.len()));
        if !blind { self.learn(step, &groups, width) } else { Ok(()) }
    }

    fn update(&mut self, step: &Step<'_>) -> Result<DataFrame> {
        let (_, blind) = self.next_batch(step.queries.height(), step.database);
        let chosen = self.seen.chosen(self.points, step.seed);
        let before = self.model.take();
        self.candidates = Vec::new();
        let Some((views, measure)) = self.views.clone().zip(self.measure.clone()).filter(|_| !blind) else {
            return places(step, Vec::new(), &self.seen, &chosen, self.views.as_ref());
        };
        let model = Model::fit(before.as_ref(), &self.seen, &chosen, views.width(), &measure, &self.niche)?;
        let (out, vectors) = vectors_of(step.pending, &views)?;
        let model = model.believing(vectors.view())?;
        self.candidates = match &self.library {
            Some(_) => self.front(&model, &out, step),
            None => {
                let rng = &mut step.rng("surrogate shortlist", 0);
                self.shortlist.ids(&views, &measure, &self.seen, &chosen, rng)?
            }
        };
        self.model = Some(model);
        if self.library.is_none() || self.candidates.is_empty() {
            let best = if self.barren { Vec::new() } else { self.seen.best(BEST) };
            return places(step, best, &self.seen, &chosen, Some(&views));
        }
        // Where the search stands.
        let best = step.database.take_columns(&self.seen.top(), &[])?;
        slots(step.queries, finite(&best)?.view().mapv(f64::from).view())
    }
}

impl Select for SurrogateUpdate {
    fn select(&self, step: &Step<'_>) -> Result<DataFrame> {
        self.check()?;
        // Before anything is paid for.
        let embeddings = finite(step.results)?;
        let queries = schema::u32s(step.results, QUERY_IDX)?;
        let distinct: HashSet<u32> = queries.iter().copied().collect();
        let (batch, _) = self.next_batch(distinct.len(), step.database);
        let ids = schema::u64s(step.results, DB_IDX)?;
        let pool = first_of_each(&ids, &in_turn(&queries));
        let chosen: Vec<u32> = match (&self.model, &self.views) {
            (Some(model), Some(views)) => {
                let rows: Vec<usize> = pool.iter().map(|row| *row as usize).collect();
                let ids: Vec<u64> = rows.iter().map(|row| ids[*row]).collect();
                let vectors = views.vectors(&ids, embeddings.view().select(Axis(0), &rows).view());
                let chosen = model.choose(vectors.view(), batch, &mut step.rng("surrogate sample", 0))?;
                chosen.into_iter().map(|row| pool[row]).collect()
            }
            _ => {
                let (known, others): (Vec<u32>, Vec<u32>) =
                    pool.into_iter().partition(|row| self.known.contains(&ids[*row as usize]));
                let missing = batch.saturating_sub(known.len());
                known.into_iter().chain(others.into_iter().take(missing)).collect()
            }
        };
        convert::gather(step.results, &chosen)
    }

    fn columns_read(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}
