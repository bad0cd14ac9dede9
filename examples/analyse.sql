-- Analyses the Parquet files of a run: the best items, the best score by cost, the movement of the queries, and how well the
-- model predicted. Also works while the run is in progress, after its first iteration:
--
--     cd RUN && duckdb < analyse.sql

-- All results, one row for each query and item. The folder names give the column `iteration`. Its type is given, as
-- DuckDB would infer text from the leading zeros.
create or replace temp view results as
from read_parquet('results/*/*.parquet', hive_types = {'iteration': uinteger});

create or replace temp view queries as
from read_parquet('queries/*/*.parquet', hive_types = {'iteration': uinteger});

-- Each item once, in the first iteration that found it.
create or replace temp view items as
select distinct on (db_idx) * exclude (query_idx, distance)
from results
order by db_idx, iteration;

-- The ten best items.
select *
from items
order by score desc nulls last, db_idx
limit 10;

-- The best score so far by cost: the items that scored better than all earlier ones.
select evaluation, score as best_so_far, db_idx, iteration
from items
qualify score > coalesce(max(score) over (order by evaluation rows between unbounded preceding and 1 preceding), '-infinity')
order by evaluation;

-- The iterations: rows, items found for the first time, evaluations so far, scores.
select
    results.iteration,
    count(*) as rows,
    count(distinct results.db_idx) filter (items.iteration = results.iteration) as new_items,
    max(max(results.evaluation)) over (order by results.iteration) as evaluations,
    avg(results.score) as mean_score,
    max(results.score) as best_score
from results
join items using (db_idx)
group by results.iteration
order by results.iteration;

-- Items without a score, by outcome and reason. Reasons that differ only in numbers are counted together.
select outcome, min(reason) as reason, count(*) as items
from items
where score is null
group by outcome, regexp_replace(reason, '[0-9][0-9.]*', '#', 'g')
order by items desc, reason;

-- How far the queries moved: in each step, and from their start. (This includes the last update,
-- so it is one iteration longer than the results.)
select
    now.iteration,
    avg(list_distance(now.embedding, before.embedding)) as mean_step,
    max(list_distance(now.embedding, before.embedding)) as longest_step,
    avg(list_distance(now.embedding, start.embedding)) as mean_from_start
from queries as now
join queries as before on before.iteration + 1 = now.iteration and before.query_idx = now.parent_idx
join queries as start on start.iteration = 0 and start.query_idx = now.collection_idx
group by now.iteration
order by now.iteration;

-- What the model predicted of each item before it was scored. Rules without a model predict nothing: the last select adds
-- the columns.
create or replace temp view predictions as
select *, (evaluation - 1) // 100 + 1 as hundred
from (
    from items
    union all by name
    select null::double as predicted, null::double as deviation, null::varchar as chosen_by where false
);

-- Calibration by hundred scores: the share of them within 1.28 deviations of the prediction (0.8 if the deviations are right).
select
    hundred,
    count(*) as predictions,
    avg((abs(score - predicted) < 1.2816 * deviation)::integer) as covered,
    avg(score - predicted) as mean_error
from predictions
where score is not null and predicted is not null
group by hundred
order by hundred;

-- Parity by hundred scores: predicted against scored, and their rank correlation (equal values have their mean rank).
select hundred, avg(predicted) as predicted, avg(score) as score, corr(predicted_rank, score_rank) as rank_correlation
from (
    select
        *,
        rank() over (partition by hundred order by predicted)
            + (count(*) over (partition by hundred, predicted) - 1) / 2 as predicted_rank,
        rank() over (partition by hundred order by score) + (count(*) over (partition by hundred, score) - 1) / 2 as score_rank
    from predictions
    where score is not null and predicted is not null
)
group by hundred
order by hundred;

-- The 100th best score before each batch: a better score is an entry into the best 100.
create or replace temp view thresholds as
select batch.iteration, max(earlier.score, 100)[100] as threshold
from (select distinct iteration from items) as batch
join items as earlier on earlier.iteration < batch.iteration
group by batch.iteration
having threshold is not null;

-- The scores per entry, by hundred scores.
select
    hundred,
    count(*) as scores,
    count(*) filter (score > threshold) as entries,
    count(*) / nullif(count(*) filter (score > threshold), 0) as scores_per_entry
from predictions
join thresholds using (iteration)
where hundred is not null
group by hundred
order by hundred;

-- The probability that a standard normal value is less (Abramowitz and Stegun, 26.2.17: to 1e-7).
create or replace temp macro tail(z, t) as
    exp(-z * z / 2) / sqrt(2 * pi()) * t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
create or replace temp macro probability(z) as
    case when z < 0 then tail(z, 1 / (1 - 0.2316419 * z)) else 1 - tail(z, 1 / (1 + 0.2316419 * z)) end;

-- The predictions of each batch, and the number of the batch. Batches without predictions do not count.
create or replace temp view predicted_batches as
select *, dense_rank() over (order by iteration) as batch
from predictions
where iteration in (select iteration from predictions where predicted is not null);

-- The forecast and the observed entries of each batch into the best 100. The probability of an entry comes from the errors of
-- earlier batches, in deviations, mixed with a normal distribution. A factor corrects what is left. Weights decay by batch.
with items_of_batches as (
    select iteration, batch, db_idx, (threshold - predicted) / deviation as z, score > threshold as is_entry
    from predicted_batches
    join thresholds using (iteration)
),
residuals as (
    select batch, (score - predicted) / deviation as residual
    from predicted_batches
    where score is not null and predicted is not null
),
items_with_probability as (
    select
        item.iteration,
        item.batch,
        item.db_idx,
        any_value(item.is_entry) as is_entry,
        (2 * probability(-any_value(item.z))
            + coalesce(sum(0.8 ** (item.batch - earlier.batch - 1)) filter (earlier.residual > item.z), 0))
            / (2 + coalesce(sum(0.8 ** (item.batch - earlier.batch - 1)), 0)) as probability
    from items_of_batches as item
    left join residuals as earlier
        -- Older errors have no weight.
        on earlier.batch < item.batch and earlier.batch > item.batch - 150
    group by item.iteration, item.batch, item.db_idx
),
batches as (
    select
        iteration,
        row_number() over (order by iteration) as batch,
        sum(probability) as expected,
        count(*) filter (is_entry) as entries
    from items_with_probability
    group by iteration
),
corrections as (
    select
        batches.iteration,
        greatest(0.1, least(2,
            (coalesce(sum(earlier.entries * 0.8 ** (batches.batch - earlier.batch - 1)), 0) + 1)
                / (coalesce(sum(earlier.expected * 0.8 ** (batches.batch - earlier.batch - 1)), 0) + 1)
        )) as correction
    from batches
    left join batches as earlier on earlier.batch < batches.batch
    group by batches.iteration
)
select
    iteration,
    count(*) as items,
    sum(least(1, correction * probability)) filter (probability is not null) as forecast,
    count(*) filter (is_entry) as entries
from items_with_probability
join corrections using (iteration)
group by iteration
order by iteration;
