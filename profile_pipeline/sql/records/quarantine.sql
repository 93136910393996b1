-- malformed lines; refused rows of each source are added to these
select r.file_id, r.line, f.source, f.batch, 'raw' as stage, [r.reason] as reasons, r.content
from raw.rejects r
join raw.files f using (file_id)
where f.state = 'loaded'
