-- Reads the runs of many targets, written with --out arr/target=NAME, as one table:
--
--     duckdb < targets.sql        (in the folder that contains arr/)
--
-- The folder names give the columns `target` and `iteration`.
create or replace temp view results as
from read_parquet('arr/*/results/*/*.parquet', union_by_name = true, hive_types = {'target': varchar, 'iteration': uinteger});

-- The three best items of each target, each item once.
select target, db_idx, max(score) as score, min(evaluation) as evaluation
from results
where score is not null
group by target, db_idx
qualify row_number() over (partition by target order by max(score) desc, db_idx) <= 3
order by target, score desc, db_idx;
