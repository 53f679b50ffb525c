-- Takes ARGV[1] tokens from every bucket of KEYS, or from none, and ARGV[2] more if that leaves a quarter of each.
-- A bucket has three arguments: tokens, the microseconds they come back in, its size. It is stored as what is gone
-- from it and when that was so, by the clock of this server. Answers how many it took, then three numbers a
-- bucket: tokens left, microseconds until this call would pass, microseconds until the bucket is full.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local n, more = tonumber(ARGV[1]), tonumber(ARGV[2])
local slack = 1e-6 -- of a token: what arithmetic in doubles may be off
local buckets, allowed = {}, 1
for i, key in ipairs(KEYS) do
  local rate, size = ARGV[3 * i] / ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2])
  local gone, at = string.match(redis.call('GET', key) or '0 0', '^(%S+) (%d+)$')
  -- A clock that went back gives nothing and, since "at" is now from here on, takes nothing. A bucket that was
  -- made smaller is no emptier than empty.
  gone = math.min(size, math.max(0, gone - math.max(0, now - at) * rate))
  buckets[i] = {gone = gone, rate = rate, size = size}
  if gone + n > size + slack then allowed = 0 end
  if gone + n + more > size * 0.75 then more = 0 end
end
n = n + more
local answer = {allowed * n}
for i, key in ipairs(KEYS) do
  local b = buckets[i]
  local wait = math.max(0, math.ceil((b.gone + n - b.size - slack) / b.rate))
  if allowed == 1 then b.gone = math.min(b.size, b.gone + n) end
  local full = math.ceil(b.gone / b.rate)
  redis.call('SET', key, string.format('%.17g %.0f', b.gone, now), 'PX', math.ceil(full / 1000) + 1)
  answer[3 * i - 1], answer[3 * i], answer[3 * i + 1] = math.floor(b.size - b.gone + slack), wait, full
end
return answer
